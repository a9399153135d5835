"""Tones: made, and measured in what was heard. A frame that is lost, put in twice or played late
shows as a jump of the phase, even where the level does not tell."""

import array
import cmath
import math
from dataclasses import dataclass
from operator import mul

from .case import check
from .sound import write_wav

# No whole number of periods fits a frame of 10, 20, 30, 40 or 60 ms.
LOW, HIGH = 437.5, 687.5
AMPLITUDE = 8_000
WINDOW_MS, HOP_MS = 20, 10
JUMP = math.radians(25)
SILENT_DB = -12


@dataclass(frozen=True)
class Measured:
    """What was found of one tone."""

    seconds: float
    level_db: float  # against how it was made
    gap_ms: int  # the longest time without it
    jumps: tuple  # when (seconds) the phase jumped
    noise_db: float  # the rest, against the tone

    def __str__(self):
        return (
            f"{self.seconds:.1f} s, {self.level_db:+.2f} dB, gap {self.gap_ms} ms, "
            f"{len(self.jumps)} jumps, rest {self.noise_db:.0f} dB"
        )


def make(frequency, seconds, rate):
    """A tone."""
    turn = 2 * math.pi * frequency / rate
    return array.array("h", (round(AMPLITUDE * math.sin(turn * it))
                             for it in range(int(seconds * rate))))


def microphone(box, frequency, rate, channels=1, seconds=40):
    """A WAV with a tone; its path."""
    path = box.path(f"tone-{frequency:.0f}-{rate}-{channels}.wav")
    if not path.exists():
        write_wav(path, make(frequency, seconds, rate), rate, channels)
    return path


def amplitude(samples, rate, frequency):
    """The complex amplitude of a frequency in samples."""
    turn = cmath.exp(-2j * math.pi * frequency / rate)
    return 2 * sum(it * turn**number for number, it in enumerate(samples)) / len(samples)


def windows(samples, rate, frequency):
    """The complex amplitude of the tone in each window, and the power of all that is in it."""
    step = rate // 8_000
    samples = samples[::step]
    size, hop = 8 * WINDOW_MS, 8 * HOP_MS
    shape = [1 - math.cos(2 * math.pi * (it + 0.5) / size) for it in range(size)]
    turn = cmath.exp(-2j * math.pi * frequency / 8_000)
    table = [shape[it] * turn**it for it in range(size)]
    onward, angle = turn**hop, 1
    found = []
    for start in range(0, len(samples) - size + 1, hop):
        part = samples[start : start + size]
        value = 2 * sum(map(mul, part, table)) / size * angle
        found.append((value, 2 * sum(map(mul, shape, map(mul, part, part))) / size))
        angle *= onward
    return found


def measure(samples, rate, frequency, settle=0.7, ending=0.1):
    """The tone in what was heard, from `settle` seconds after its start, until `ending` before its
    end."""
    found = windows(samples, rate, frequency)
    loud = [number for number, it in enumerate(found) if abs(it[0]) > AMPLITUDE / 4]
    check(loud, f"no tone of {frequency} Hz in {len(samples) / rate:.1f} s")
    skip, less = int(settle * 1000 / HOP_MS), int(ending * 1000 / HOP_MS)
    first, last = loud[0] + skip, loud[-1] - less
    check(last - first > 50, f"only {len(loud) * HOP_MS} ms of {frequency} Hz")
    found = found[first:last]
    sizes = sorted(abs(it[0]) for it in found)
    typical = sizes[len(sizes) // 2]
    gap = longest = 0
    jumps, noise = [], []
    # Windows that share nothing, so that a jump shows whole.
    apart = WINDOW_MS // HOP_MS
    for number, (value, power) in enumerate(found):
        silent = 20 * math.log10(max(abs(value), 1e-6) / typical) < SILENT_DB
        gap = gap + HOP_MS if silent else 0
        longest = max(longest, gap)
        at = (first + number) * HOP_MS / 1000
        before = found[max(0, number - apart)][0]
        if abs(cmath.phase(value * before.conjugate())) > JUMP and not silent:
            if not jumps or at - jumps[-1] > 2 * WINDOW_MS / 1000:
                jumps.append(round(at, 2))
        if not silent:
            noise.append(max(power / abs(value) ** 2 - 1, 1e-9))
    noise.sort()
    return Measured(
        seconds=len(found) * HOP_MS / 1000,
        level_db=20 * math.log10(typical / AMPLITUDE),
        gap_ms=longest,
        jumps=tuple(jumps),
        noise_db=10 * math.log10(noise[len(noise) // 2]),
    )
