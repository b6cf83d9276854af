"""What the peers read, made of one GGUF file: copies of it, folders of transformers and genai.

Everything is made once and kept in one folder; the weights of all are the same numbers before each
system rounds them in its own way.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from allmem_runtime.files.atomic import publish_file, publish_folder
from allmem_runtime.files.temporary import temporary_folder
from benchmarks.peers.child import ROOT, Gone

_TABLES = "max_position_embeddings"


def longer_file(gguf: Path, folder: Path, context: int) -> Path:
    """The same file, or a copy that says it was trained for ``context`` tokens if it was for fewer.

    llama.cpp's server gives a slot no more than that, so it could not be measured there at all.
    """
    import gguf as library

    fields = library.GGUFReader(str(gguf)).fields
    key = f"{fields['general.architecture'].contents()}.context_length"
    if int(fields[key].contents()) >= context:
        return gguf
    path = folder / f"{gguf.stem}.context-{context}.gguf"
    if not path.is_file():
        with publish_file(path) as part:
            shutil.copyfile(gguf, part)
            field = library.GGUFReader(str(part), "r+").fields[key]
            field.parts[field.data[0]][0] = context
    return path


def float16_file(gguf: Path, folder: Path) -> Path:
    """The same model with matrices in float16."""
    path = folder / f"{gguf.stem}.float16.gguf"
    if not path.is_file():
        with publish_file(path) as part:
            _write_float16(gguf, part)
    return path


def _write_float16(gguf: Path, target: Path) -> None:
    import gguf as library
    import numpy as np

    reader = library.GGUFReader(str(gguf))
    field = reader.fields["general.architecture"]
    writer = library.GGUFWriter(str(target), str(field.contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        if name == "general.file_type":
            writer.add_file_type(library.LlamaFileType.MOSTLY_F16)
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == library.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        values = library.quants.dequantize(tensor.data, tensor.tensor_type)
        wanted = np.float16 if values.ndim > 1 else np.float32
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, wanted))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def transformers_folder(gguf: Path, folder: Path) -> Path:
    """The same model as transformers keeps models, in float32."""
    path = folder / "transformers"
    if not path.is_dir():
        code = (
            "import sys; from transformers import AutoTokenizer\n"
            "from benchmarks.conversion import pretrained\n"
            "file, folder, parent, name = sys.argv[1:]\n"
            "pretrained(file).save_pretrained(folder)\n"
            "AutoTokenizer.from_pretrained(\n"
            "    parent, gguf_file=name, trust_remote_code=False).save_pretrained(folder)\n"
        )
        with publish_folder(path) as part:
            arguments = [str(gguf), str(part), str(gguf.parent), gguf.name]
            _run([sys.executable, "-c", code, *arguments], "transformers does not read the file")
    return path


def genai_folder(gguf: Path, folder: Path, python: str, context: int) -> Path:
    """The same model in int4, accuracy level 4, by onnxruntime-genai's own model builder.

    Its table of positions is made as long as the context, beyond what the model was trained for:
    otherwise it could not be measured there at all.

    Args:
        gguf: the file all is made of.
        folder: where results are kept.
        python: a Python with onnxruntime-genai.
        context: tokens that must fit.

    Raises:
        Gone: the package is not there, or its builder failed.
    """
    source = transformers_folder(gguf, folder)
    config = json.loads((source / "config.json").read_text())
    context = max(context, config[_TABLES])
    path = folder / f"genai-int4-{context}"
    if path.is_dir():
        return path
    where = _run(
        [python, "-c", "import onnxruntime_genai as g; print(g.__path__[0])"],
        "install it with `pip install onnxruntime-genai`",
    )
    # The builder needs PyTorch and transformers, which this Python has.
    builder = Path(where.strip().splitlines()[-1]) / "models" / "builder.py"
    options = ["-p", "int4", "-e", "cpu", "-c", str(folder / "genai.cache")]
    extra = ["--extra_options", "int4_accuracy_level=4"]
    with temporary_folder(folder / "genai.source") as longer, publish_folder(path) as part:
        shutil.copytree(source, longer, dirs_exist_ok=True)
        (longer / "config.json").write_text(json.dumps({**config, _TABLES: context}))
        places = ["-i", str(longer), "-o", str(part)]
        _run([sys.executable, str(builder), *places, *options, *extra], "its model builder failed")
    return path


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError as error:
        raise Gone(f"{what} ({command[0]}: {error.strerror})") from None
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise Gone(f"{what} ({words[-1] if words else done.returncode})"[:300])
    return done.stdout
