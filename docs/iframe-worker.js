// Search in pages that are opened from a folder: browsers allow no worker there, so its script runs in a hidden frame. The
// plugin `offline` of MkDocs Material loads a file of this name from the network otherwise.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.scope = frame.contentWindow
      this.scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.loaded = new Promise(resolve => {
        const script = frame.contentDocument.createElement("script")
        Object.assign(script, { src: url, onload: resolve })
        frame.contentDocument.body.append(script)
      })
    }
    async postMessage(data) {
      await this.loaded
      this.scope.dispatchEvent(new this.scope.MessageEvent("message", { data }))
    }
  }
