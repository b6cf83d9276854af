"""Read a text of any length with progress, save the session, ask questions that leave no trace.

python examples/read_and_ask.py demo/model book.txt "Who is the book about?" "Where is it set?"
"""

import sys
from pathlib import Path

from allmem_runtime import load

model_path, text_path, *questions = sys.argv[1:]
model = load(model_path)
saved = Path(text_path).with_suffix(".allmem")

session = model.open(saved) if saved.exists() else model.session()
with open(text_path, "rb") as text:
    text.seek(session.source_offset)  # a session that was saved half-way goes on where it stopped
    for progress in session.ingest(text):
        rate = f"{progress.tokens_per_second:.0f} tokens/s"
        print(f"\r{progress.position} tokens, {rate}", end="", file=sys.stderr)
session.save(saved)

for question in questions:
    print(f"\n> {question}")
    for piece in session.fork().stream(question):
        print(piece, end="", flush=True)
print()
