// A WHIP client (RFC 9725) that also listens.
import { Ear } from "./ear.js";

export class Whip {
  // `options`: iceServers, policy ("relay"), codec ("PCMU"), direction, trickle, only ("tcp"),
  // family (6: as in a network that has nothing else),
  // via (a port of this machine through which UDP goes), setup ("passive": we wait for DTLS),
  // leaves (the edge is told when the page is left).
  constructor(url, token, options = {}) {
    Object.assign(this, { url, token, options, times: {} });
    this.states = [];
  }

  async start() {
    const now = () => performance.now();
    const { options, times } = this;
    times.began = now();
    const peer = new RTCPeerConnection({ iceServers: options.iceServers ?? [] });
    this.peer = peer;
    peer.onconnectionstatechange = () => {
      this.states.push(peer.connectionState);
      if (peer.connectionState === "connected") times.connected ??= now();
    };
    peer.ontrack = ({ streams, track }) => {
      this.ear = new Ear(streams[0] ?? new MediaStream([track]));
    };
    this.microphone = await navigator.mediaDevices.getUserMedia({ audio: globalThis.raw });
    const direction = options.direction ?? "sendrecv";
    const [track] = this.microphone.getAudioTracks();
    const sender = peer.addTransceiver(track, { direction });
    this.sender = sender.sender;
    if (options.codec) {
      const all = RTCRtpReceiver.getCapabilities("audio").codecs;
      const wanted = (it) => it.mimeType === `audio/${options.codec}`;
      const events = (it) => it.mimeType === "audio/telephone-event";
      sender.setCodecPreferences([...all.filter(wanted), ...all.filter(events)]);
    }
    await peer.setLocalDescription();
    times.posted = now();
    const { sdp } = peer.localDescription;
    // Whoever would do either may say so of one of them.
    const setup = `a=setup:${options.setup ?? "actpass"}`;
    const offer = sdp.replaceAll("a=setup:actpass", setup);
    const answer = await this.send("POST", this.url, "application/sdp", offer);
    if (answer.status !== 201) {
      throw new Error(`${answer.status} ${await answer.text()}`);
    }
    this.location = new URL(answer.headers.get("location"), this.url).href;
    if (options.leaves) addEventListener("pagehide", () => this.leave());
    this.etag = answer.headers.get("etag");
    this.link = answer.headers.get("link");
    this.answer = this.only(await answer.text());
    times.answered = now();
    await peer.setRemoteDescription({ type: "answer", sdp: this.answer });
  }

  // The answer without the candidates of the other transport, as in a network that blocks it, and
  // with `via` in place of the edge's own UDP port, which is `port` from then on.
  only(sdp) {
    const { only, via, family } = this.options;
    const change = (line) => {
      if (!line.startsWith("a=candidate:")) return line;
      const words = line.split(" ");
      if (words[2].toLowerCase() !== (via ? "udp" : (only ?? words[2].toLowerCase()))) return null;
      if (family && words[4].includes(":") !== (family === 6)) return null;
      if (via) [this.port, words[4], words[5]] = [Number(words[5]), "127.0.0.1", via];
      return words.join(" ");
    };
    return sdp.split("\r\n").map(change).filter((line) => line !== null).join("\r\n");
  }

  // Another network: all candidates are gathered anew, under new credentials (RFC 9725 4.3.3).
  async restart() {
    const { peer } = this;
    peer.restartIce();
    await peer.setLocalDescription();
    const lines = peer.localDescription.sdp.split("\r\n");
    const wanted = /^a=(ice-ufrag|ice-pwd|mid|candidate|end-of-candidates)|^m=/;
    const fragment = lines.filter((line) => wanted.test(line)).join("\r\n") + "\r\n";
    const kind = "application/trickle-ice-sdpfrag";
    const answer = await this.send("PATCH", this.location, kind, fragment, { "if-match": "*" });
    if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
    this.etag = answer.headers.get("etag");
    const value = (text, name) => text.match(new RegExp(`a=${name}:([^\\r\\n]*)`))[1];
    const fresh = await answer.text();
    for (const name of ["ice-ufrag", "ice-pwd"]) {
      this.answer = this.answer.replaceAll(
        `a=${name}:${value(this.answer, name)}`,
        `a=${name}:${value(fresh, name)}`,
      );
    }
    await peer.setRemoteDescription({ type: "answer", sdp: this.answer });
  }

  send(method, url, kind, body, more = {}) {
    const headers = { authorization: `Bearer ${this.token}`, "content-type": kind, ...more };
    return fetch(url, { method, headers, body });
  }

  press(digit) {
    this.sender.dtmf.insertDTMF(digit, 120, 60);
  }

  // Hangs up also where the page does not live to see the answer.
  leave() {
    const headers = { authorization: `Bearer ${this.token}` };
    return fetch(this.location, { method: "DELETE", headers, keepalive: true });
  }

  async hangUp() {
    const { status } = await this.leave();
    this.peer.close();
    this.microphone.getTracks().forEach((it) => it.stop());
    this.ear?.context.close();
    return status;
  }

  // What is known of the way: candidates, cipher, codec, figures.
  async figures() {
    const all = [...(await this.peer.getStats()).values()];
    const one = (type, more = () => true) => all.find((it) => it.type === type && more(it)) ?? {};
    const transport = one("transport");
    const pair = one("candidate-pair", (it) => it.id === transport.selectedCandidatePairId);
    const inbound = one("inbound-rtp");
    return {
      dtls: transport.dtlsState,
      version: transport.tlsVersion,
      cipher: transport.dtlsCipher,
      srtp: transport.srtpCipher,
      role: transport.dtlsRole,
      protocol: one("remote-candidate", (it) => it.id === pair.remoteCandidateId).protocol,
      from: one("local-candidate", (it) => it.id === pair.localCandidateId).address,
      to: one("remote-candidate", (it) => it.id === pair.remoteCandidateId).address,
      codec: one("codec", (it) => it.id === inbound.codecId).mimeType ?? null,
      received: inbound.packetsReceived ?? 0,
      lost: inbound.packetsLost ?? 0,
      sent: one("outbound-rtp").packetsSent ?? 0,
      concealed: inbound.concealedSamples ?? 0,
      setup: this.times,
    };
  }
}
