// penstock.js 0.1.0 - MIT License - Copyright (c) 2026 The Penstock developers
/**
 * A client of `Penstock: v1` for browsers and Node: WebSocket messages that leave many to one frame, are numbered and
 * acknowledged, and arrive once and in order though the connection breaks. No dependencies. See README.md.
 */

export const VERSION = "0.1.0";
const NAME = "penstock.v1";
const [DATA, DATAZ, PART, ACK, HELLO, WELCOME, BYE, UNKNOWN] = [0, 1, 2, 3, 4, 5, 6, 16];
const [NEW, RESUMED, ENDED] = [0, 1, 4];
const [LAST, TEXT] = [1, 2]; // flags of a PART
const [BAD_FRAME, BAD_TEXT, GAP, TOO_BIG] = [4900, 4907, 4910, 4913];
const RESUMABLE = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014]);
const MAX_MESSAGES = 4096; // in a frame
const OURS = { maxFrame: 2 ** 20, window: 2 ** 20, maxMessage: 2 ** 24 };
const FRAME = 2 ** 16; // bytes of a frame that is sent: several fit a window, so that they follow each other closely
const OVERHEAD = 64; // more than a frame has beside what it carries
const REPLAY_BYTES = 2 ** 22, REPLAY_FRAMES = 4096; // kept until they are acknowledged; then `send` waits
const ACK_FRAMES = 32, ACK_DELAY = 50; // milliseconds, as all times here
const TIMEOUT = 10_000; // for a handshake, and for a close

// Errors

/** The connection is closed. `code` and `reason` tell how. */
export class ConnectionClosed extends Error {
  constructor(code, reason = "", message = `connection closed: ${code} ${reason}`.trim()) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.reason = reason;
  }

  /** Whether it was closed as usual, so that iteration just ends. */
  get inOrder() {
    return this.code === 1000 || this.code === 1001;
  }
}

/** The connection broke and could not be resumed; `unacknowledged`: messages that may not have arrived. */
export class SessionLost extends ConnectionClosed {
  constructor(why, unacknowledged, code = 1006, reason = "") {
    super(code, reason, `session lost: ${why}; ${unacknowledged.length} messages may not have arrived`);
    this.unacknowledged = unacknowledged;
  }

  get inOrder() {
    return false;
  }
}

/** The peer closed in order before it told that it had taken everything; `unacknowledged`: what that is. */
export class DeliveryUnknown extends Error {
  constructor(unacknowledged) {
    super(`the peer closed, and may not have taken the last ${unacknowledged.length} messages`);
    this.name = "DeliveryUnknown";
    this.unacknowledged = unacknowledged;
  }
}

/** The server does not speak the envelope protocol, so nothing tells what it has taken. */
export class EnvelopeRefused extends Error {
  constructor() {
    super("the server does not acknowledge messages: it does not speak penstock.v1");
    this.name = "EnvelopeRefused";
  }
}

/** The peer broke the rules; it is told by the close code. */
class BadFrame extends Error {
  constructor(code, reason) {
    super(`${code}: ${reason}`);
    this.code = code;
    this.reason = reason;
  }
}

// Frames: the part of msgpack that they need

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Writes whole numbers, text, bytes and the heads of arrays into `bytes`, of which `length` are used. */
class Writer {
  constructor(size = 256) {
    this.bytes = new Uint8Array(size);
    this.length = 0;
    this.count = 0; // of messages, where it gathers them
  }

  #reserve(size) {
    if (this.length + size <= this.bytes.length) return;
    const old = this.bytes;
    this.bytes = new Uint8Array(2 * (this.length + size));
    this.bytes.set(old);
  }

  /** A head: `value` in the first byte up to `most`, else in 1, 2, 4 or 8 bytes behind one of the `codes`. */
  #head(value, most, first, codes) {
    this.#reserve(9);
    if (value <= most) {
      this.bytes[this.length++] = first + value;
      return;
    }
    let width = value < 2 ** 8 ? 0 : value < 2 ** 16 ? 1 : value < 2 ** 32 ? 2 : 3;
    if (!codes[width]) width++; // arrays have no head of 1 byte
    this.bytes[this.length++] = codes[width];
    for (let shift = 2 ** width - 1; shift >= 0; shift--) this.bytes[this.length++] = value / 2 ** (8 * shift); // mod 256
  }

  number(value) {
    this.#head(value, 127, 0, [0xcc, 0xcd, 0xce, 0xcf]);
    return this;
  }

  array(count) {
    this.#head(count, 15, 0x90, [0, 0xdc, 0xdd]);
    return this;
  }

  raw(bytes) {
    this.#reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
    return this;
  }

  binary(bytes) {
    this.#head(bytes.length, -1, 0, [0xc4, 0xc5, 0xc6]);
    return this.raw(bytes);
  }

  text(string) {
    this.#reserve(5 + 3 * string.length);
    const start = this.length + 5; // behind the longest head; it moves up to its own
    const { written } = utf8.encodeInto(string, this.bytes.subarray(start));
    this.#head(written, 31, 0xa0, [0xd9, 0xda, 0xdb]);
    this.bytes.copyWithin(this.length, start, start + written);
    this.length += written;
    return this;
  }

  /** What was written; a copy. */
  done() {
    return this.bytes.slice(0, this.length);
  }
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  #number(size) {
    let value = 0;
    for (let end = this.at + size; this.at < end; ) value = value * 256 + this.bytes[this.at++];
    if (!(value < 2 ** 53)) throw new BadFrame(BAD_FRAME, "truncated, or a number above 2^53-1"); // NaN behind the end
    return value;
  }

  #piece(size) {
    if (size > this.bytes.length - this.at) throw new BadFrame(BAD_FRAME, "truncated");
    return this.bytes.subarray(this.at, (this.at += size));
  }

  #text(size) {
    const piece = this.#piece(size);
    try {
      return text.decode(piece);
    } catch {
      throw new BadFrame(BAD_TEXT, "invalid UTF-8");
    }
  }

  #array(count, depth) {
    if (depth > 1) throw new BadFrame(BAD_FRAME, "an array among messages");
    if (count > MAX_MESSAGES) throw new BadFrame(TOO_BIG, `${count} messages in a frame`);
    return Array.from({ length: count }, () => this.value(depth + 1));
  }

  /** The next value: a number, a string, a Uint8Array, or an array that is `depth` arrays deep. */
  value(depth = 0) {
    const first = this.#number(1);
    if (first < 0x80) return first;
    if (first >= 0xa0 && first < 0xc0) return this.#text(first - 0xa0);
    if (first >= 0x90 && first < 0xa0) return this.#array(first - 0x90, depth);
    if (first >= 0xc4 && first <= 0xc6) return this.#piece(this.#number(2 ** (first - 0xc4))).slice();
    if (first >= 0xcc && first <= 0xcf) return this.#number(2 ** (first - 0xcc));
    if (first >= 0xd9 && first <= 0xdb) return this.#text(this.#number(2 ** (first - 0xd9)));
    if (first >= 0xdc && first <= 0xdd) return this.#array(this.#number(2 ** (first - 0xdb)), depth);
    throw new BadFrame(BAD_FRAME, `no value begins with ${first}`);
  }
}

const LAYOUTS = ["na", "nnnb", "nnb", "nn", "bnnnnnn", "bnnnnnnnns", "nsn"]; // of DATA to BYE
const kind = (value) => (value instanceof Uint8Array ? "b" : Array.isArray(value) ? "a" : (typeof value)[0]);

/** The frame in a WebSocket message, `[type, ...fields]`; throws BadFrame where it is none. For tests. */
export function readFrame(data) {
  if (typeof data === "string") throw new BadFrame(BAD_FRAME, "a text frame");
  const reader = new Reader(new Uint8Array(data));
  const frame = reader.value();
  if (reader.at < reader.bytes.length) throw new BadFrame(BAD_FRAME, "trailing bytes");
  const [type, ...fields] = Array.isArray(frame) ? frame : [];
  if (type >= UNKNOWN) return frame;
  if (!LAYOUTS[type] || [...LAYOUTS[type]].some((wanted, i) => kind(fields[i]) !== wanted))
    throw new BadFrame(BAD_FRAME, `no frame: type ${type} with ${fields.length} fields`);
  if (type === DATA && (!fields[1].length || fields[1].some((message) => typeof message === "number" || Array.isArray(message))))
    throw new BadFrame(BAD_FRAME, "DATA holds messages, text or bytes, and at least one");
  return frame;
}

/** The bytes of a frame of numbers, texts and bytes: all but DATA. For tests. */
export function writeFrame(...fields) {
  const writer = new Writer().array(fields.length);
  for (const field of fields) {
    if (typeof field === "number") writer.number(field);
    else if (typeof field === "string") writer.text(field);
    else writer.binary(field);
  }
  return writer.done();
}

// Connections

/** Calls back when the present turn of the event loop is over; browsers delay timers, but not messages. */
const soon =
  globalThis.setImmediate ??
  (() => {
    const { port1, port2 } = new MessageChannel(), calls = [];
    port1.onmessage = () => calls.shift()();
    return (call) => (calls.push(call), port2.postMessage(0));
  })();

/** A message as it is sent: text, or its bytes. */
function content(message) {
  if (typeof message === "string" || message instanceof Uint8Array) return message;
  if (message instanceof ArrayBuffer) return new Uint8Array(message);
  if (ArrayBuffer.isView(message)) return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  throw new TypeError("a message is a string, an ArrayBuffer or a view of one");
}

function checkClose(code, reason) {
  if (code !== 1000 && !(code >= 3000 && code <= 4999)) throw new RangeError(`close code ${code}: 1000, or 3000 to 4999`);
  if (utf8.encode(reason).length > 123) throw new RangeError("a close reason has 123 bytes at most");
}

/**
 * What `connect` gives. Iterate over it for messages, strings or Uint8Arrays; iteration ends when it is closed with 1000
 * or 1001, and throws `ConnectionClosed` otherwise. Leaving the loop closes nothing.
 *
 * Events: `close` (with `code`, `reason`), and where it is reliable `detach`, when it broke and is to be resumed, and
 * `resume`.
 */
export class Connection extends EventTarget {
  #unread = [];
  #next = 0; // in #unread
  #waiters = [];
  #error = null;

  constructor(protocol, reliable) {
    super();
    /** The application's subprotocol; "" for none. */
    this.protocol = protocol;
    /** Whether messages are acknowledged, and sent again after a break. */
    this.reliable = reliable;
    /** Resolved, with the error that tells how, once it is closed. */
    this.closed = new Promise((resolve) => (this._closed = resolve));
  }

  /** The next message; rejects with `ConnectionClosed` when there will be none. @returns {Promise<string|Uint8Array>} */
  recv() {
    if (this.#next < this.#unread.length) {
      const message = this.#unread[this.#next];
      this.#unread[this.#next++] = undefined;
      if (this.#next === this.#unread.length) this.#unread = [], this.#next = 0;
      this._taken();
      return Promise.resolve(message);
    }
    if (this.#error) return Promise.reject(this.#error);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  [Symbol.asyncIterator]() {
    const next = async () => {
      try {
        return { value: await this.recv(), done: false };
      } catch (error) {
        if (error.inOrder) return { value: undefined, done: true };
        throw error;
      }
    };
    return { next, return: async () => ({ value: undefined, done: true }) };
  }

  get _left() {
    return this.#unread.length - this.#next;
  }

  get _error() {
    return this.#error;
  }

  _put(message) {
    const waiter = this.#waiters.shift();
    if (!waiter) return void this.#unread.push(message);
    waiter.resolve(message);
    this._taken();
  }

  /** Called for each message that is handed out. */
  _taken() {}

  _emit(type, facts) {
    this.dispatchEvent(Object.assign(new Event(type), facts));
  }

  _end(error) {
    if (this.#error) return;
    this.#error = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    this._closed(error);
    this._emit("close", { code: error.code, reason: error.reason });
  }
}

/** Ordinary WebSocket frames: nothing is acknowledged, and a break is the end. */
class PlainConnection extends Connection {
  #ws;
  #turn = Promise.resolve();

  constructor(ws) {
    super(ws.protocol, false);
    this.#ws = ws;
    ws.onmessage = ({ data }) => this._put(typeof data === "string" ? data : new Uint8Array(data));
    ws.onclose = ({ code, reason }) => this._end(new ConnectionClosed(code, reason));
  }

  send(message) {
    const step = async () => {
      const data = content(message);
      while (this.#ws.readyState === 1 && this.#ws.bufferedAmount >= REPLAY_BYTES) await sleep(10);
      if (this.#ws.readyState !== 1) throw this._error ?? new ConnectionClosed(1006, "closing");
      this.#ws.send(data);
    };
    return (this.#turn = this.#turn.then(step, step));
  }

  async delivered() {
    throw new EnvelopeRefused();
  }

  async close(code = 1000, reason = "") {
    checkClose(code, reason);
    await this.#turn.catch(() => {});
    this.#ws.close(code, reason);
    await Promise.race([this.closed, sleep(TIMEOUT)]);
    this._end(new ConnectionClosed(code, reason));
  }
}

/** Goes on over one socket after another. What it does is numbered as in the protocol: see its names there. */
class ReliableConnection extends Connection {
  #how;
  #ws = null; // while it is attached
  #sid = new Uint8Array();
  #ttl = 0;
  #theirs = OURS;
  // What is sent
  #tx = 0;
  #acked = 0;
  #written = 0;
  #inFlight = 0; // bytes written and not acknowledged
  #kept = new Map(); // frames by their numbers, until they are acknowledged
  #keptBytes = 0;
  #batch = new Writer(); // messages that are not in a frame yet
  #isDue = false; // `#advance` is going to be called
  #senders = []; // who waits for room
  #receipts = []; // who waits for an acknowledgement
  // What is received
  #rx = 0;
  #taken = 0;
  #told = 0; // of #taken
  #want = 0;
  #arrived = 0; // messages, ever
  #waiting = []; // frames that were not taken: number, messages up to its end, bytes
  #unacknowledgedBytes = 0; // of frames that the peer was not told of
  #untoldBytes = 0; // of those, in frames that were taken
  #mustTell = false;
  #pieces = null;
  #piecesBytes = 0;
  #timer = null;
  // The end
  #closing = null; // code and reason, once `close` was called
  #saidBye = false;
  #peerBye = null;

  constructor(how, ws, begun, failed) {
    super(ws.protocol.slice(NAME.length + 1), true);
    this.#how = how;
    this.#greet(ws, begun, failed);
  }

  // Handshake and resume

  #greet(ws, done, failed) {
    ws.onmessage = ({ data }) => {
      try {
        const frame = readFrame(data);
        if (frame[0] !== WELCOME) throw new BadFrame(BAD_FRAME, "WELCOME was expected");
        this.#welcome(ws, frame);
        done(this);
      } catch (error) {
        failed(error);
      }
    };
    const { maxFrame, window, maxMessage } = OURS;
    ws.send(writeFrame(HELLO, this.#sid, this.#rx, this.#acked + 1, maxFrame, window, 0, maxMessage));
  }

  #welcome(ws, [, sid, status, rx, first, maxFrame, window, , ttl, maxMessage]) {
    if (maxFrame < 4096 || window < 1) throw new BadFrame(BAD_FRAME, "limits that make no sense");
    const isNew = !this.#sid.length;
    if (isNew !== (status === NEW)) throw new BadFrame(BAD_FRAME, `status ${status}`);
    const mayResume = first <= this.#rx + 1 && this.#acked <= rx && rx <= this.#tx;
    if (status === RESUMED && mayResume && String(sid) === String(this.#sid)) {
      this.#written = rx;
      this.#inFlight = 0;
      for (let seq = this.#acked + 1; seq <= rx; seq++) this.#inFlight += this.#kept.get(seq).length;
    } else if (isNew || (status !== RESUMED && status !== ENDED && this.#how.onsessionlost === "resend")) {
      [this.#sid, this.#ttl, this.#theirs] = [sid, ttl, { maxFrame, window, maxMessage }];
      this.#beginAgain();
    } else {
      ws.send(writeFrame(BYE, 1000, "", 0)); // nobody wants the fresh session
      hangUp(ws, 1000);
      if (status === ENDED) return this.#end(new ConnectionClosed(1000));
      return this.#lose("the server has forgotten it");
    }
    this.#ws = ws;
    ws.onmessage = ({ data }) => this.#receive(data);
    ws.onclose = ({ code, reason }) => this.#broke(code, reason);
    this.#saidBye = false;
    this.#tell();
    this.#advance();
    if (isNew) return;
    this._emit("resume");
    this.#how.onresume?.();
  }

  /** On a new session, send all that may be lost with the old one. */
  #beginAgain() {
    const messages = this.#unacknowledged();
    this.#kept.clear();
    this.#batch = new Writer();
    this.#tx = this.#acked = this.#written = this.#inFlight = this.#keptBytes = 0;
    this.#rx = this.#taken = this.#told = this.#want = this.#unacknowledgedBytes = this.#untoldBytes = 0;
    this.#waiting = [];
    this.#pieces = null;
    this.#piecesBytes = 0;
    for (const message of messages) this.#add(message);
    this.#cut();
    for (const receipt of this.#receipts) receipt.seq = this.#tx;
  }

  #broke(code, reason) {
    this.#ws = null;
    if (this.#peerBye || (this.#saidBye && this.#acked === this.#tx))
      this.#end(new ConnectionClosed(...(this.#peerBye ?? this.#closing)));
    else if (!RESUMABLE.has(code)) this.#lose("the server closed it", code, reason);
    else {
      this._emit("detach", { code, reason });
      this.#reconnect();
    }
  }

  async #reconnect() {
    const over = performance.now() + this.#ttl;
    const delays = this.#how.delays();
    for (let left = this.#ttl, delay = 0; left > 0; left = over - performance.now()) {
      try {
        return await dial(this.#how, this.#how.offer, Math.min(left, TIMEOUT), (ws, done, failed) => {
          if (this._error) failed(this._error);
          else if (!speaks(ws)) failed(new EnvelopeRefused());
          else this.#greet(ws, done, failed);
        });
      } catch (error) {
        if (this._error) return;
        const isFinal = error instanceof ConnectionClosed ? !RESUMABLE.has(error.code) : !(error instanceof Timeout);
        if (isFinal) return this.#lose(`the server refused to go on: ${error.message}`);
      }
      delay = delays.next().value ?? delay; // the last one serves for ever
      await sleep(Math.max(0, Math.min(delay, over - performance.now())));
      if (this._error) return;
    }
    this.#lose(`the server could not be reached within ${this.#ttl / 1000} s`);
  }

  // Sending

  send(message) {
    let data;
    try {
      data = content(message);
      const most = this.#theirs.maxMessage;
      if (data.length > most || (3 * data.length > most && typeof data === "string" && utf8.encode(data).length > most))
        throw new RangeError(`a message of more than ${most} bytes, which the peer does not take`);
      if (this._error || this.#closing || this.#peerBye) throw this._error ?? new ConnectionClosed(1006, "closing");
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.#senders.length || this.#isFull)
      return new Promise((resolve, reject) => this.#senders.push({ data, resolve, reject }));
    this.#add(data);
    if (!this.#isDue) {
      this.#isDue = true;
      soon(() => {
        this.#isDue = false;
        this.#advance();
      });
    }
    return Promise.resolve();
  }

  get #isFull() {
    return this.#keptBytes + this.#batch.length >= REPLAY_BYTES || this.#kept.size >= REPLAY_FRAMES;
  }

  #add(message) {
    const room = Math.min(this.#theirs.maxFrame, FRAME) - OVERHEAD;
    const isText = typeof message === "string";
    if (5 + message.length * (isText ? 3 : 1) > room) return this.#addParts(message, isText, room);
    if (this.#batch.length + 5 + message.length * (isText ? 3 : 1) > room || this.#batch.count === MAX_MESSAGES) this.#cut();
    if (isText) this.#batch.text(message);
    else this.#batch.binary(message);
    this.#batch.count++;
  }

  #addParts(message, isText, room) {
    this.#cut();
    const data = isText ? utf8.encode(message) : message;
    for (let start = 0; start < data.length; start += room) {
      const flags = (isText ? TEXT : 0) | (start + room >= data.length ? LAST : 0);
      this.#keep(writeFrame(PART, this.#tx + 1, flags, data.subarray(start, start + room)));
    }
  }

  /** Number what has gathered; from then on it never changes. */
  #cut() {
    const { bytes, length, count } = this.#batch;
    if (!count) return;
    const frame = new Writer(length + OVERHEAD).array(3).number(DATA).number(this.#tx + 1).array(count);
    this.#keep(frame.raw(bytes.subarray(0, length)).done());
    this.#batch.length = this.#batch.count = 0;
  }

  #keep(frame) {
    this.#kept.set(++this.#tx, frame);
    this.#keptBytes += frame.length;
  }

  /** Whatever has changed: let senders go on, write what the window allows, and close when all is done. */
  #advance() {
    while (this.#senders.length && !this.#isFull) {
      const { data, resolve } = this.#senders.shift();
      this.#add(data);
      resolve();
    }
    if (!this.#ws) return;
    if (this.#inFlight < this.#theirs.window) this.#cut();
    while (this.#written < this.#tx && this.#inFlight < this.#theirs.window && !this.#peerBye) {
      const frame = this.#kept.get(++this.#written);
      this.#inFlight += frame.length;
      this.#ws.send(frame);
    }
    const hasEnded = this.#peerBye && !this._left;
    if (!this.#saidBye && (hasEnded || (this.#closing && (this.#peerBye || (this.#written === this.#tx && !this.#senders.length))))) {
      this.#tell();
      this.#saidBye = true;
      this.#ws.send(writeFrame(BYE, ...(this.#peerBye ?? this.#closing), this.#taken));
    }
    if (this.#saidBye && this.#closing && (this.#peerBye || this.#acked === this.#tx)) this.#ws.close(...this.#closing);
  }

  async delivered() {
    await this.#senders.at(-1)?.accepted;
    this.#cut();
    if (this.#acked === this.#tx) return;
    if (this._error) throw this.#unknown();
    const receipt = new Promise((resolve, reject) => this.#receipts.push({ seq: this.#tx, resolve, reject }));
    this.#advance();
    this.#tell();
    await receipt;
  }

  #unacknowledged() {
    this.#cut();
    const messages = [];
    let pieces = [];
    for (const [type, , what, piece] of [...this.#kept.values()].map(readFrame)) {
      if (type === DATA) messages.push(...what);
      else if (pieces.push(piece) && what & LAST) {
        messages.push(what & TEXT ? text.decode(joined(pieces)) : joined(pieces));
        pieces = [];
      }
    }
    return messages;
  }

  #unknown() {
    return this._error instanceof SessionLost ? this._error : new DeliveryUnknown(this.#unacknowledged());
  }

  // Receiving

  #receive(data) {
    try {
      this.#handle(readFrame(data), data.byteLength);
    } catch (error) {
      if (!(error instanceof BadFrame)) throw error;
      hangUp(this.#ws, error.code, error.reason);
      this.#lose(error.reason, error.code, error.reason);
    }
  }

  #handle([type, ...fields], size) {
    if (type <= PART) {
      this.#sequenced(type, fields, size);
    } else if (type === ACK) {
      this.#acknowledged(fields[0]);
      this.#want = Math.max(this.#want, fields[1]);
    } else if (type === BYE) {
      if (this.#peerBye) return;
      this.#acknowledged(fields[2]);
      this.#peerBye = fields.slice(0, 2);
      this.#refuse(this.#unknown(), new ConnectionClosed(...this.#peerBye));
    } else if (type < UNKNOWN) {
      throw new BadFrame(BAD_FRAME, "a second handshake");
    }
    this.#take();
    this.#advance();
  }

  #sequenced(type, fields, size) {
    const seq = fields[0];
    if (seq <= this.#rx) return void (this.#mustTell = true); // the peer does not know that it has arrived
    if (seq > this.#rx + 1) throw new BadFrame(GAP, `frame ${seq} after ${this.#rx}`);
    if (this.#unacknowledgedBytes > OURS.window) throw new BadFrame(TOO_BIG, "more than the window");
    const messages = this.#open(type, fields);
    this.#rx = seq;
    this.#arrived += messages.length;
    this.#waiting.push([seq, this.#arrived, size]);
    this.#unacknowledgedBytes += size;
    for (const message of messages) this._put(message);
  }

  #open(type, [, flags, piece, raw]) {
    if (type === DATAZ) {
      const isTooBig = flags > MAX_MESSAGES || piece > OURS.maxFrame;
      throw new BadFrame(isTooBig ? TOO_BIG : BAD_FRAME, `no codec was agreed on for ${raw.length} bytes`);
    }
    if (type === DATA) {
      if (this.#pieces) throw new BadFrame(BAD_FRAME, "a message in the middle of another");
      return flags;
    }
    (this.#pieces ??= []).push(piece);
    this.#piecesBytes += piece.length;
    if (this.#piecesBytes > OURS.maxMessage) throw new BadFrame(TOO_BIG, `a message of more than ${OURS.maxMessage} bytes`);
    if (!(flags & LAST)) return [];
    const data = joined(this.#pieces);
    this.#pieces = null;
    this.#piecesBytes = 0;
    return [flags & TEXT ? decoded(data) : data];
  }

  #acknowledged(taken) {
    if (taken > this.#written) throw new BadFrame(BAD_FRAME, `frame ${taken} acknowledged, ${this.#written} was the last`);
    while (this.#acked < taken) {
      const size = this.#kept.get(++this.#acked).length;
      this.#kept.delete(this.#acked);
      this.#keptBytes -= size;
      this.#inFlight -= size;
    }
    while (this.#receipts.length && this.#receipts[0].seq <= this.#acked) this.#receipts.shift().resolve();
  }

  _taken() {
    this.#take();
    if (this.#peerBye && !this._left) this.#advance();
  }

  /** The application has taken messages: tell the peer, if it is time, or before long. */
  #take() {
    const taken = this.#arrived - this._left;
    while (this.#waiting.length && this.#waiting[0][1] <= taken) {
      const [seq, , size] = this.#waiting.shift();
      this.#taken = seq;
      this.#untoldBytes += size;
    }
    const untold = this.#taken - this.#told;
    const isWanted = this.#told < this.#want && this.#want <= this.#taken;
    if (this.#mustTell || untold >= ACK_FRAMES || this.#untoldBytes * 4 >= OURS.window || isWanted) this.#tell();
    else if (untold) this.#timer ??= setTimeout(() => this.#tell(), ACK_DELAY);
  }

  #tell() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (!this.#ws || this.#saidBye) return;
    this.#told = this.#taken;
    this.#unacknowledgedBytes -= this.#untoldBytes;
    this.#untoldBytes = 0;
    this.#mustTell = false;
    this.#ws.send(writeFrame(ACK, this.#taken, this.#receipts[0]?.seq ?? 0));
  }

  // The end

  async close(code = 1000, reason = "") {
    checkClose(code, reason);
    if (!this._error && !this.#closing) {
      this.#closing = [code, reason];
      this.#advance();
      const timer = setTimeout(() => {
        if (this.#ws) hangUp(this.#ws, code, reason);
        if (this.#saidBye && this.#acked === this.#tx) this.#end(new ConnectionClosed(code, reason));
        else this.#lose("the server did not answer before it was closed");
      }, TIMEOUT);
      await this.closed;
      clearTimeout(timer);
    }
    await this.closed;
  }

  #lose(why, code, reason) {
    this.#end(new SessionLost(why, this.#unacknowledged(), code, reason));
  }

  #end(error) {
    if (this._error) return;
    this.#ws = null;
    clearTimeout(this.#timer);
    this._end(error);
    this.#refuse(this.#unknown(), error);
  }

  /** Nothing more will be delivered. */
  #refuse(unknown, closed) {
    for (const receipt of this.#receipts.splice(0)) receipt.reject(unknown);
    for (const sender of this.#senders.splice(0)) sender.reject(closed);
  }
}
