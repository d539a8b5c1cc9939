"""The code of the users' document, as printed: escapes undone, and the signs that Python and JSON cannot read."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "data" / "guide_plugin.txt").read_text(encoding="utf-8")
TENSORFLOW, PYTORCH = TEXT.split("PyTorch插件式量化\n", 1)


def blocks(part: str) -> list[str]:
    """Python and JSON of a part of the document, in its order; prose in front of a line's code is cut."""
    found = []
    for line in part.splitlines():
        code = re.search(
            r"(## ckpt|import \w+\\n|from dopt|with tf|\{\\n|\w+ = \w+\(|\w+\.save\(|generate_\w+\(.*\)).*", line
        )
        if code and "\\n" in line or line.startswith(("generate_config_file(", "quant_model =", "torch.save(")):
            found.append(code[0].replace("\\n", "\n").replace('\\"', '"'))
    return found


def ascii_signs(code: str) -> str:
    """Full-width punctuation and curly quotes outside of comments as the signs that were meant."""
    lines = []
    for line in code.split("\n"):
        text, mark, comment = line.partition("##")
        lines.append(text.translate(str.maketrans("，：“”（）", ',:""()')) + mark + comment)
    return "\n".join(lines)
