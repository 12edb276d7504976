/** A server for `connect` to meet, without a network: the test sees each frame, and says each answer. */
import { readFrame, writeFrame } from "../penstock.js";

export const DATA = 0, PART = 2, ACK = 3, HELLO = 4, WELCOME = 5, BYE = 6;
export const SID = new Uint8Array(32).fill(7);

/** @param select chooses a subprotocol; undefined where it accepts none, so that the handshake fails */
export function fakeServer(select = (offered) => offered[0]) {
  const sockets = [];
  class FakeSocket {
    readyState = 0;
    bufferedAmount = 0;
    sent = [];
    closedWith = null;

    constructor(url, protocols) {
      this.offered = [protocols].flat();
      sockets.push(this);
      setImmediate(() => {
        this.protocol = select(this.offered);
        if (this.protocol === undefined) return this.cut();
        this.readyState = 1;
        this.onopen?.();
      });
    }

    send(data) {
      this.sent.push(data);
    }

    close(code, reason) {
      this.closedWith ??= [code, reason];
      if (this.readyState === 1) setImmediate(() => this.cut(code, reason));
      this.readyState = 2;
    }

    // What a test sees and does

    /** The frames of a type that were sent; all without one. */
    frames(type) {
      return this.sent.map((data) => readFrame(data)).filter((frame) => type === undefined || frame[0] === type);
    }

    /** The next frame of a type that was not awaited yet. */
    async next(type) {
      this.seen ??= {};
      const index = (this.seen[type] ??= 0);
      this.seen[type]++;
      await until(() => this.frames(type).length > index);
      return this.frames(type)[index];
    }

    say(...fields) {
      this.sayBytes(writeFrame(...fields));
    }

    sayBytes(bytes) {
      this.onmessage?.({ data: typeof bytes === "string" ? bytes : Uint8Array.from(bytes).buffer });
    }

    welcome({ status = 0, sid = SID, rx = 0, first = 1, window = 2 ** 20, ttl = 90_000, most = 2 ** 24 } = {}) {
      this.say(WELCOME, sid, status, rx, first, 2 ** 20, window, 0, ttl, most, "");
    }

    cut(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose?.({ code, reason });
    }
  }
  /** The n-th socket, once it was opened and has greeted. */
  const socket = async (n = 0) => {
    await until(() => sockets[n]?.sent.length);
    return sockets[n];
  };
  return { WebSocket: FakeSocket, sockets, socket };
}

export async function until(reached, ms = 2000) {
  for (const start = performance.now(); !reached(); await new Promise(setImmediate))
    if (performance.now() - start > ms) throw new Error(`not reached: ${reached}`);
}
