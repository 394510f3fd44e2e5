"""Execute notebooks reproducibly with papermill, and convert them to HTML with nbconvert."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import jupytext
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from pygments.formatters import HtmlFormatter

from hodor.errors import HodorError

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

    unexecuted = jupytext.read(source, fmt="py:percent")
    options = {"kernel_manager_class": _Kernel, "kernel_name": "python3", "language": "python"}
    options |= {"progress_bar": False, "stderr_file": sys.stderr}
    with TemporaryDirectory(prefix="hodor-notebook-") as scratch, mock.patch.dict(os.environ, _environment(scratch)):
        try:
            executed = papermill.execute_notebook(unexecuted, None, parameters, **options)
        except PapermillExecutionError as error:
            if error.ename == "HodorError":
                raise HodorError(error.evalue) from None
            raise
    return _reproducible(executed, source.stem)


def to_html(notebook: NotebookNode) -> tuple[str, str]:
    """Convert a notebook to a piece of HTML with folded code and embedded figures; return it and its CSS."""
    excluded = dict.fromkeys(("exclude_input_prompt", "exclude_output_prompt", "exclude_anchor_links"), True)
    exporter = HTMLExporter(raw_template=_TEMPLATE, mathjax_url="", require_js_url="", **excluded)
    return exporter.from_notebook_node(notebook)[0], HtmlFormatter().get_style_defs(".highlight")


class _Kernel(AsyncKernelManager):
    """The running interpreter as a kernel, which needs no installed one."""

    @property
    def kernel_spec(self) -> KernelSpec:
        launcher = ["-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
        return KernelSpec(argv=[sys.executable, *launcher], language="python")


def _environment(scratch: str) -> dict[str, str]:
    """Return environment variables of a kernel that imports this checkout and reads nothing of the user's home folder."""
    return {
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "JUPYTER_RUNTIME_DIR": f"{scratch}/runtime",
        # Without the user's start-up files.
        "IPYTHONDIR": f"{scratch}/ipython",
        "MPLBACKEND": "agg",
    }


def _reproducible(notebook: NotebookNode, name: str) -> NotebookNode:
    """Remove everything that differs between two runs, among it the cells' output to stderr."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{number}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook
