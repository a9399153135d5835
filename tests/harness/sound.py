"""Speech made (flite), measured, and recognised (pocketsphinx)."""

import array
import math
import random
import wave
from operator import mul

from .case import check

MODEL = "/usr/share/pocketsphinx/model/en-us"
FRAME_MS = 20
SPEECH_RMS = 250  # about -42 dBFS: far above codec noise, far below the voices
CLAUSE_GAP_MS = 250


def read_wav(path):
    """The channels of a 16-bit WAV, each an array of samples, and its rate."""
    with wave.open(str(path), "rb") as file:
        check(file.getsampwidth() == 2, f"{path} is not 16-bit PCM")
        count, rate = file.getnchannels(), file.getframerate()
        samples = array.array("h", file.readframes(file.getnframes()))
    return [samples[index::count] for index in range(count)], rate


def read_growing_wav(path, channels=1):
    """The first channel of what a WAV holds so far (its header is written at the end)."""
    data = path.read_bytes()
    start = data.find(b"data")
    if start < 0:
        return array.array("h")
    body = data[start + 8 :]
    samples = array.array("h", body[: len(body) // 2 * 2])
    return samples[::channels]


def write_wav(path, samples, rate, channels=1):
    """Writes mono samples, repeated on every channel."""
    if channels > 1:
        samples = array.array("h", (it for it in samples for _ in range(channels)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def say(box, text, rate, channels=1, voice="rms", before=0.0, after=0.0):
    """A WAV of a spoken sentence between silences (seconds); its path."""
    name = f"say-{abs(hash((text, rate, before, after)))}"
    spoken = box.path(f"{name}-16k.wav")
    done = box.run(name, ["flite", "-voice", voice, "-t", text, "-o", spoken])
    check(done.returncode == 0 and spoken.exists(), f"flite failed: {done.stderr}")
    (samples,), made_at = read_wav(spoken)
    samples = resample(samples, made_at, rate)
    whole = silence(before, rate) + samples + silence(after, rate)
    path = box.path(f"{name}.wav")
    write_wav(path, whole, rate, channels)
    return path


def silence(seconds, rate):
    """Zeros."""
    return array.array("h", bytes(2 * int(seconds * rate)))


def resample(samples, from_rate, to_rate):
    """Windowed-sinc resampling by a ratio of small whole numbers."""
    if from_rate == to_rate:
        return samples
    shared = math.gcd(from_rate, to_rate)
    up, down = to_rate // shared, from_rate // shared
    cut = min(1.0, up / down)
    half = math.ceil(12 / cut)
    phases = []
    for phase in range(up):
        shift = phase / up
        taps = []
        for index in range(-half + 1, half + 1):
            x = index - shift
            window = 0.5 + 0.5 * math.cos(math.pi * x / (half + 1))
            sinc = 1.0 if x == 0 else math.sin(math.pi * x * cut) / (math.pi * x * cut)
            taps.append(cut * sinc * window)
        phases.append(taps)
    padded = array.array("h", bytes(2 * half)) + samples + array.array("h", bytes(2 * half))
    out = array.array("h")
    for number in range(len(samples) * up // down):
        place, phase = divmod(number * down, up)
        value = sum(map(mul, padded[place + 1 : place + 1 + 2 * half], phases[phase]))
        out.append(max(-32768, min(32767, round(value))))
    return out


def levels(samples, rate):
    """The RMS of each frame of 20 ms; of high rates every so many-th sample is enough."""
    size, step = rate * FRAME_MS // 1000, max(1, rate // 8_000)
    starts = range(0, len(samples) - size + 1, size)
    return [rms(samples[at : at + size : step]) for at in starts]


def rms(samples):
    """The RMS of all."""
    return math.sqrt(sum(map(mul, samples, samples)) / max(1, len(samples)))


def speech_seconds(samples, rate):
    """How long somebody speaks in it."""
    return sum(it > SPEECH_RMS for it in levels(samples, rate)) * FRAME_MS / 1000


def spoken_parts(samples, rate, gap_ms=CLAUSE_GAP_MS):
    """Start and end (seconds) of what is spoken, parted by gaps of at least `gap_ms`."""
    parts = []
    for number, level in enumerate(levels(samples, rate)):
        if level <= SPEECH_RMS:
            continue
        at = number * FRAME_MS
        if parts and at - parts[-1][1] < gap_ms:
            parts[-1][1] = at + FRAME_MS
        else:
            parts.append([at, at + FRAME_MS])
    return [(start / 1000, end / 1000) for start, end in parts if end - start >= 100]


def quiet_seconds(samples, rate):
    """For how long it has been silent at its end; `None` where nobody has spoken yet."""
    parts = spoken_parts(samples, rate)
    return len(samples) / rate - parts[-1][1] if parts else None


# The clauses of deploy/agents/reception.toml as the recogniser's dictionary spells them, what the
# callers of these cases say, and sentences that nobody says: what is heard must win against all.
CLAUSES = [
    "hello this is call gate",
    "your call is encrypted",
    "say opening hours address or goodbye",
    "or press one two or three",
    "we are open from monday to friday",
    "from nine in the morning to five in the afternoon",
    "on saturday we are open from ten to two",
    "on sunday we are closed",
    "you find us at number twelve harbor street",
    "next to the old station",
    "parking is behind the building",
    "would you like to know anything else",
    "thank you for calling",
    "goodbye",
    "sorry i did not understand",
    "i can not hear you",
    "please call again",
    "opening hours",
    "address",
    "the address",
    "your call is being recorded",
    "all of our lines are busy",
    "please leave a message after the tone",
    "the number that you have dialed is not in service",
    "tomorrow there will be rain in the north",
]


def recognise(box, samples, rate, name="heard"):
    """The clauses heard in it, one after the other, as one text."""
    wide = resample(samples, rate, 16_000)
    grammar = box.write(
        "clauses.jsgf",
        "#JSGF V1.0;\ngrammar clauses;\n<clause> = " + "\n | ".join(CLAUSES) + ";\n"
        "public <said> = <clause>+;\n",
    )
    # The wideband model misses the band that telephone codecs cut: a little noise fills it.
    chance = random.Random(1)
    names = []
    for start, end in spoken_parts(wide, 16_000, gap_ms=600):
        part = wide[max(0, int((start - 0.3) * 16_000)) : int((end + 0.3) * 16_000)]
        noisy = (max(-32768, min(32767, int(it + chance.gauss(0, 60)))) for it in part)
        names.append(f"{name}-{len(names)}")
        write_wav(box.path(f"{names[-1]}.wav"), array.array("h", noisy), 16_000)
    if not names:
        return ""
    listed = box.write(f"{name}.list", "".join(f"{it}\n" for it in names))
    found = box.path(f"{name}.found")
    command = [
        "pocketsphinx_batch", "-adcin", "yes", "-adchdr", "44", "-cepdir", box.folder,
        "-cepext", ".wav", "-ctl", listed, "-hyp", found, "-hmm", f"{MODEL}/en-us",
        "-dict", f"{MODEL}/cmudict-en-us.dict", "-jsgf", grammar, "-logfn", "/dev/null",
    ]  # fmt: skip
    done = box.run(f"{name}.recognise", command, timeout=90)
    check(done.returncode == 0, f"pocketsphinx_batch: {done.stderr[-500:]}")
    # A line is `words (name score)`.
    said = [line.rpartition("(")[0].strip() for line in found.read_text().splitlines()]
    text = " / ".join(it for it in said if it)
    box.write(f"{name}.txt", text + "\n")
    return text


def entropy(data):
    """Bits per byte: 8 for what is encrypted, far less for G.711 speech."""
    counts = [0] * 256
    for byte in data:
        counts[byte] += 1
    shares = [it / len(data) for it in counts if it]
    return -sum(it * math.log2(it) for it in shares)


def from_pcmu(data):
    """What G.711 mu-law stands for."""
    out = array.array("h")
    for byte in data:
        byte = ~byte & 0xFF
        value = (((byte & 0x0F) << 3) + 132 << (byte >> 4 & 7)) - 132
        out.append(-value if byte & 0x80 else value)
    return out


def pcmu(samples):
    """G.711 mu-law of 8 kHz samples: what plain RTP would carry."""
    out = bytearray()
    for sample in samples:
        sign = 0x80 if sample < 0 else 0
        value = min(32_635, abs(sample)) + 132
        exponent = max(0, value.bit_length() - 8)
        out.append(~(sign | exponent << 4 | (value >> (exponent + 3)) & 0x0F) & 0xFF)
    return bytes(out)
