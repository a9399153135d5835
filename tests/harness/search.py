"""Searches files for a text in every encoding in which it might have been left there."""

import base64
import urllib.parse


def encodings(text):
    """Each encoding's name and the bytes to look for; letters are looked for in lower case."""
    plain = text.lower()
    for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
        yield codec, plain.encode(codec)
        yield f"{codec}, reversed", plain[::-1].encode(codec)
    for form in sorted({text, plain, text.upper(), text.capitalize()}):
        raw = form.encode()
        yield f"hex of {form}", raw.hex().encode()
        for skip in range(3):
            # What surrounds the text changes the first and the last characters.
            coded = base64.b64encode(b"\0" * skip + raw)
            inner = coded[(0, 2, 3)[skip] : len(coded) // 4 * 4 - 4]
            yield f"base64 of {form}, offset {skip}", inner.lower()
            yield f"base64url of {form}, offset {skip}", inner.translate(
                bytes.maketrans(b"+/", b"-_")
            ).lower()
    if " " in plain:
        yield "percent", urllib.parse.quote(plain).lower().encode()
        yield "plus", plain.replace(" ", "+").encode()
    digits = "".join(it for it in text if it.isdigit())
    if len(digits) >= 6:
        yield "digits", digits.encode()
        yield "digits, reversed", digits[::-1].encode()
        for odd in (digits, "0" + digits, digits + "f"):
            even = odd[: len(odd) // 2 * 2]
            yield "BCD", bytes.fromhex(even)
            swapped = "".join(even[at + 1] + even[at] for at in range(0, len(even), 2))
            yield "BCD, nibbles swapped", bytes.fromhex(swapped)
        yield "integer", int(digits).to_bytes(8, "little")
        yield "integer, big endian", int(digits).to_bytes(8, "big")


def find(folder, texts):
    """Where any of `texts` is found: file, text and encoding."""
    found = []
    files = [it for it in sorted(folder.rglob("*")) if it.is_file()]
    for path in files:
        raw = path.read_bytes()
        folded = raw.lower()
        for text in texts:
            for name, wanted in encodings(text):
                is_binary = name.startswith(("BCD", "integer"))
                if wanted and (wanted in raw if is_binary else wanted in folded):
                    found.append(f"{path.name}: {text!r} as {name}")
    return found, len(files)


def find_bytes(folder, wanted):
    """The files that hold these bytes."""
    files = [it for it in sorted(folder.rglob("*")) if it.is_file()]
    return [it.name for it in files if wanted in it.read_bytes()]
