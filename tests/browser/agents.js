// What the page has of others: SIP.js and JsSIP, bundled unmodified, and our own plain WHIP client,
// written as RFC 9725 describes one.
import * as SIP from "sip.js";
import JsSIP from "jssip";
import { Ear } from "./ear.js";
import { Voice } from "./voice.js";
import { Whip } from "./whip.js";

// A microphone as it is: what cleans speech takes a tone for noise.
const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

Object.assign(globalThis, { SIP, JsSIP, Ear, Voice, Whip, raw });
