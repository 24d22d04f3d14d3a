"""The source runs nothing that a file holds: no pickle, no code made of text, no shell."""

import ast

import pytest
from source import MODULES, dotted, keyword, module_name

pytestmark = pytest.mark.unchecked

UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
# Functions of other libraries that unpickle in passing.
PICKLING = {"pandas.read_pickle", "pd.read_pickle", "np.fromregex", "torch.jit.load", "os.system",
            "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
            "yaml.full_load"}  # fmt: skip


def of_import(node):
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "", *names]
    return [f"imports {name}" for name in names if name.split(".")[0] in UNPICKLERS]


def of_call(node):
    name = dotted(node)
    if name in RUNNERS or name in PICKLING:
        yield f"calls {name}"
    if name == "torch.load" and keyword(node, "weights_only") != "True":
        yield "torch.load without weights_only=True"
    # It takes bytes that were made a line above, never a path.
    if name == "torch.export.load" and ast.unparse(node.args[0]) != "io.BytesIO(content)":
        yield "torch.export.load of a file"
    if keyword(node, "allow_pickle") not in (None, "False"):
        yield f"{name} with allow_pickle"
    if keyword(node, "shell") not in (None, "False"):
        yield f"{name} with a shell"
    if name == "np.load" and keyword(node, "allow_pickle") != "False":
        yield "np.load without allow_pickle=False"


def dangers(text):
    """What in a module's source could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += of_import(node)
        elif isinstance(node, ast.Call):
            found += of_call(node)
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_runs_what_a_file_holds(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch, marshal", "import joblib as j",
        "def f():\n    from shelve import open", "torch.load(p)", "torch.load(p, weights_only=w)",
        "torch.load(p, None)", "np.load(p)", "np.load(p, allow_pickle=True)",
        "np.lib.format.read_array(f, allow_pickle=True)", "yaml.load(t, yaml.BaseLoader)",
        "yaml.load(t, Loader=yaml.FullLoader)", "yaml.unsafe_load(t)", "eval(t)", "exec(t)",
        "subprocess.run(w, shell=True)", "os.system(w)", "torch.export.load(p)",
        "pandas.read_pickle(p)",
    ],
)  # fmt: skip
def test_the_gate_sees_each_danger(text):
    assert dangers(text)


@pytest.mark.parametrize(
    "text",
    ["torch.load(p, weights_only=True)", "np.load(p, allow_pickle=False)", "yaml.safe_load(t)",
     "re.compile(t)", "model.eval()", "subprocess.run(w)"],
)  # fmt: skip
def test_the_gate_lets_the_rest_pass(text):
    assert not dangers(text)
