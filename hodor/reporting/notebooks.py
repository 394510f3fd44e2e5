"""Execute notebooks reproducibly with papermill, and convert them to HTML with nbconvert."""

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
# Code is folded.
_TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{% block input %}<details class="code"><summary>code</summary>{{ super() }}</details>{% endblock input %}
"""


def execute(source: Path, parameters: dict) -> NotebookNode:
    """Execute a text notebook (jupytext, percent format) with the current interpreter.

    The kernel runs in the current directory, imports this checkout of `hodor`, and needs no installed kernel and no home
    folder. The same inputs give the same bytes: no times, no random ids, no metadata of papermill.

    Args:
        source: the notebook.
        parameters: values for the cell with the tag `parameters`.

    Raises:
        HodorError: raised in the notebook.
        papermill.exceptions.PapermillExecutionError: any other error in the notebook, with its traceback.
    """
    # Builds matplotlib's font cache here, which would print into the notebook.
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
        return _reproducible(nbformat.read(executed, as_version=4), source.stem)


def to_html(notebook: NotebookNode) -> tuple[str, str]:
    """Convert a notebook to a piece of HTML with folded code and embedded figures; return it and its CSS."""
    excluded = dict.fromkeys(("exclude_input_prompt", "exclude_output_prompt", "exclude_anchor_links"), True)
    exporter = HTMLExporter(raw_template=_TEMPLATE, mathjax_url="", require_js_url="", **excluded)
    return exporter.from_notebook_node(notebook)[0], HtmlFormatter().get_style_defs(".highlight")


@contextmanager
def _kernel(scratch: Path) -> Iterator[None]:
    """Describe a kernel of the running interpreter and this checkout, for this process only."""
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
    environment = {
        "JUPYTER_PATH": str(scratch / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        # Without the user's start-up files.
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "agg",
    }
    with mock.patch.dict(os.environ, environment):
        yield


def _reproducible(notebook: NotebookNode, name: str) -> NotebookNode:
    """Remove everything that differs between two runs, and print the cells' output to stderr."""
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
