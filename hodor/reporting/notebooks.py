"""Notebooks: text sources executed by papermill, the same bytes each time, and converted to HTML by nbconvert."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import jupytext
import nbformat
import papermill
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from pygments.formatters import HtmlFormatter

from hodor.errors import HodorError

_KERNEL = "hodor-report"
_ROOT = Path(__file__).resolve().parents[2]
# Code is folded away.
_TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{% block input %}<details class="code"><summary>code</summary>{{ super() }}</details>{% endblock input %}
"""


def execute(source: Path, parameters: dict) -> NotebookNode:
    """Run a text notebook (jupytext, percent format) with the current interpreter.

    The kernel works in the current directory, imports this checkout of `hodor`, and needs no kernel installed and no home
    folder. The result is the same for the same inputs: no times, no random ids, nothing of papermill's. `parameters` are
    for the cell tagged so.

    Raises:
        HodorError: Raised in the notebook.
        papermill.exceptions.PapermillExecutionError: Any other error in it, with its traceback.
    """
    # Building matplotlib's font cache, once a machine, would print into the notebook if the kernel did it.
    import matplotlib.font_manager  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="hodor-notebook-") as scratch, _kernel(Path(scratch)):
        unexecuted, executed = Path(scratch) / "in.ipynb", Path(scratch) / "out.ipynb"
        nbformat.write(jupytext.read(source, fmt="py:percent"), unexecuted)
        options = {"kernel_name": _KERNEL, "language": "python", "progress_bar": False, "cwd": os.getcwd()}
        try:
            papermill.execute_notebook(str(unexecuted), str(executed), parameters, **options)
        except PapermillExecutionError as error:
            if error.ename == "HodorError":
                raise HodorError(error.evalue) from None
            raise
        return _settled(nbformat.read(executed, as_version=4), source.stem)


def to_html(notebook: NotebookNode) -> tuple[str, str]:
    """(body, css): the notebook as a piece of HTML, code folded, figures inside; and the CSS that it needs."""
    left_out = dict.fromkeys(("exclude_input_prompt", "exclude_output_prompt", "exclude_anchor_links"), True)
    exporter = HTMLExporter(raw_template=_TEMPLATE, mathjax_url="", require_js_url="", **left_out)
    return exporter.from_notebook_node(notebook)[0], HtmlFormatter().get_style_defs(".highlight")


@contextmanager
def _kernel(scratch: Path) -> Iterator[None]:
    """A kernel description that only this process sees, for the running interpreter and this checkout."""
    python_path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    folder = scratch / "jupyter" / "kernels" / _KERNEL
    folder.mkdir(parents=True)
    launcher = ["-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    description = {
        "argv": [sys.executable, *launcher],
        "display_name": "Python 3",
        "language": "python",
        "env": {"PYTHONPATH": os.pathsep.join(python_path), "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
    }
    (folder / "kernel.json").write_text(json.dumps(description))
    ours = {
        "JUPYTER_PATH": str(scratch / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        # A person's own start-up files must not run in a report.
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "agg",
    }
    with mock.patch.dict(os.environ, ours):
        yield


def _settled(notebook: NotebookNode, name: str) -> NotebookNode:
    """The notebook without what differs between two runs; what its cells wrote to stderr goes to ours."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                print(output.text, file=sys.stderr, end="")
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook
