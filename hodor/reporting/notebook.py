"""Notebooks: text sources executed by papermill, the same bytes each time, and shown as HTML by nbconvert.

`execute` and `to_html` serve the render step; `show` is what the notebooks call.
"""

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from hodor.errors import HodorError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nbformat import NotebookNode

    from hodor.reporting.gallery import Shown

_KERNEL = "hodor-report"
_ROOT = Path(__file__).resolve().parents[2]
_MIME = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}

# Code is folded away; figures carry their description.
_TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{% block input %}<details class="code"><summary>code</summary>{{ super() }}</details>{% endblock input %}
{% block data_svg %}<figure><img src="data:image/svg+xml;base64,{{ output.data['image/svg+xml'] | text_base64 }}"
alt="{{ output | get_metadata('alt', 'image/svg+xml') | escape_html }}"></figure>{% endblock data_svg %}
"""


def show_all(figures: "Iterable[Shown]", nothing: str = "nothing was trained") -> None:
    """Displays figures with their titles and captions in the notebook that calls; a sentence where there is none."""
    from IPython.display import Markdown, display

    empty = True
    for shown in figures:
        empty = False
        display(Markdown(f"### {shown.title}"))
        show(shown.figure, shown.alt, caption=shown.caption, format="jpeg" if shown.photographs else "svg")
    if empty:
        display(Markdown(f"*Nothing to draw: {nothing}.*"))


def show(figure: "Figure", alt: str, *, caption: str = "", format: str = "svg") -> None:
    """Displays a figure in the notebook that calls.

    Args:
        alt: what the figure shows, for those who cannot see it.
        caption: a line below the figure.
        format: see `figure_bytes`.
    """
    from IPython.display import Markdown, display

    from hodor.reporting.figures import figure_bytes

    content, mime = figure_bytes(figure, format), _MIME[format]
    data = content.decode() if format == "svg" else base64.b64encode(content).decode()
    display({mime: data, "text/plain": alt}, raw=True, metadata={mime: {"alt": alt}})
    if caption:
        display(Markdown(caption))


def execute(source: Path, parameters: dict) -> "NotebookNode":
    """Runs a text notebook (jupytext, percent format) with the interpreter that runs this.

    The kernel works in the current directory, sees this checkout of `hodor`, and needs no kernel installed
    and no
    home folder. The result is the same for the same inputs: no times, no random ids, nothing of papermill's.

    Args:
        source: the notebook, with a cell tagged `parameters`.
        parameters: values for that cell, JSON types.

    Raises:
        HodorError: raised in the notebook.
        papermill.exceptions.PapermillExecutionError: any other error in it, with its traceback.
    """
    import jupytext

    # Building matplotlib's font cache, once a machine, would print into the notebook if the kernel did it.
    import matplotlib.font_manager  # noqa: F401, I001
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with tempfile.TemporaryDirectory(prefix="hodor-notebook-") as scratch, _kernel(Path(scratch)):
        unexecuted, executed = Path(scratch) / "in.ipynb", Path(scratch) / "out.ipynb"
        nbformat.write(jupytext.read(source, fmt="py:percent"), unexecuted)
        try:
            papermill.execute_notebook(
                str(unexecuted),
                str(executed),
                parameters=parameters,
                kernel_name=_KERNEL,
                language="python",
                progress_bar=False,
                cwd=os.getcwd(),
            )
        except PapermillExecutionError as error:
            if error.ename == "HodorError":
                raise HodorError(error.evalue) from None
            raise
        return _settled(nbformat.read(executed, as_version=4), source.stem)


def to_html(notebook: "NotebookNode") -> tuple[str, str]:
    """(body, css): the notebook as a piece of HTML, code folded, figures inside; and the CSS that it needs."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter = HTMLExporter(
        raw_template=_TEMPLATE,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        mathjax_url="",
        require_js_url="",
    )
    return exporter.from_notebook_node(notebook)[0], HtmlFormatter().get_style_defs(".highlight")


@contextmanager
def _kernel(scratch: Path) -> Iterator[None]:
    """A kernel description that only this process sees, for the running interpreter and this checkout."""
    python_path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    folder = scratch / "jupyter" / "kernels" / _KERNEL
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [
                    sys.executable,
                    "-m",
                    "ipykernel_launcher",
                    "-f",
                    "{connection_file}",
                    "--log-level=CRITICAL",
                ],
                "display_name": "Python 3",
                "language": "python",
                "env": {"PYTHONPATH": os.pathsep.join(python_path), "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
            }
        )
    )
    ours = {
        "JUPYTER_PATH": str(scratch / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        # A person's own start-up files must not run in a report.
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "agg",
    }
    with mock.patch.dict(os.environ, ours):
        yield


def _settled(notebook: "NotebookNode", name: str) -> "NotebookNode":
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
