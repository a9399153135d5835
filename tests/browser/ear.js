// Keeps what a page hears, so that a test can ask what was said.

export class Ear {
  constructor(stream) {
    // Chromium decodes a remote track only while some element plays it.
    this.player = new Audio();
    this.player.srcObject = stream;
    this.player.muted = true;
    this.player.play();
    this.context = new AudioContext({ sampleRate: 16000 });
    this.chunks = [];
    this.firstSound = null;
    const source = this.context.createMediaStreamSource(stream);
    const tap = this.context.createScriptProcessor(1024, 1, 1);
    tap.onaudioprocess = (event) => {
      const samples = event.inputBuffer.getChannelData(0);
      if (this.firstSound === null && samples.some((it) => Math.abs(it) > 0.01)) {
        this.firstSound = performance.now();
      }
      this.chunks.push(Int16Array.from(samples, (it) => Math.max(-1, Math.min(1, it)) * 32767));
    };
    source.connect(tap);
    tap.connect(this.context.destination);
  }

  // All that was heard, 16 bits at 16 kHz, in base64.
  async take() {
    const bytes = new Uint8Array(await new Blob(this.chunks).arrayBuffer());
    let text = "";
    for (let at = 0; at < bytes.length; at += 0x8000) {
      text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
    }
    return btoa(text);
  }

  // Seconds since anything louder than a whisper was heard; null before anything was.
  quietFor() {
    let seconds = 0;
    for (let at = this.chunks.length - 1; at >= 0; at -= 1) {
      if (this.chunks[at].some((it) => Math.abs(it) > 500)) return seconds;
      seconds += this.chunks[at].length / 16000;
    }
    return null;
  }
}
