// penstock.js 0.1.0 - MIT License - Copyright (c) 2026 The Penstock developers
/**
 * A client of `Penstock: v1` for browsers and Node: WebSocket messages that leave many to one frame, are numbered and
 * acknowledged, and arrive once and in order though the connection breaks. No dependencies. See README.md.
 */

export const VERSION = "0.1.0";
const NAME = "penstock.v1";
const [DATA, DATAZ, PART, ACK, HELLO, WELCOME, BYE, UNKNOWN] = [0, 1, 2, 3, 4, 5, 6, 16];
const [NEW, RESUMED, ENDED] = [0, 1, 4]; // what a WELCOME says
const [LAST, TEXT] = [1, 2]; // flags of a PART
const [BAD_FRAME, BAD_TEXT, GAP, TOO_BIG] = [4900, 4907, 4910, 4913];
const RESUMABLE = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014]);
const MAX_MESSAGES = 4096; // in a frame
const MAX_DEPTH = 16; // of arrays within arrays
const OURS = { maxFrame: 2 ** 20, window: 2 ** 20, maxMessage: 2 ** 24 };
const FRAME = 2 ** 16; // bytes of a frame that is sent: several fit a window, so that they follow each other closely
const OVERHEAD = 64; // more than a frame has beside what it carries
const REPLAY_BYTES = 2 ** 22, REPLAY_FRAMES = 4096; // kept until they are acknowledged; then `send` waits
const ACK_FRAMES = 32, ACK_DELAY = 50; // milliseconds, as all times here
const TIMEOUT = 10_000; // for a handshake, and for a close
const DELAYS = [2500, 3100, 5000, 8100, 13_100, 21_200, 34_400, 55_600, 90_000];

// Errors

/** The connection is closed. `code` and `reason` tell how. */
export class ConnectionClosed extends Error {
  constructor(code, reason = "", message = `connection closed: ${code} ${reason}`.trim()) {
    super(message);
    Object.assign(this, { name: new.target.name, code, reason });
  }
}

/** The connection broke and could not be resumed; `unacknowledged`: messages that may not have arrived. */
export class SessionLost extends ConnectionClosed {
  constructor(why, unacknowledged, code = 1006, reason = "") {
    super(code, reason, `session lost: ${why}; ${unacknowledged.length} messages may not have arrived`);
    this.unacknowledged = unacknowledged;
  }
}

/** The peer closed in order before it told that it had taken everything; `unacknowledged`: what that is. */
export class DeliveryUnknown extends Error {
  constructor(unacknowledged) {
    super(`the peer closed, and may not have taken the last ${unacknowledged.length} messages`);
    Object.assign(this, { name: "DeliveryUnknown", unacknowledged });
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
    Object.assign(this, { code, reason });
  }
}

// Frames: the part of msgpack that they need

const isText = (value) => typeof value === "string";
const isBytes = (value) => value instanceof Uint8Array;
const utf8 = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf(bytes) {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new BadFrame(BAD_TEXT, "invalid UTF-8");
  }
}

function joined(pieces) {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  pieces.reduce((at, piece) => (bytes.set(piece, at), at + piece.length), 0);
  return bytes;
}

/** A head: `value` in the first byte up to `most`, else in 1, 2, 4 or 8 bytes behind one of the `codes`. */
function head(value, most, first, codes) {
  if (value <= most) return [first + value];
  let width = value < 2 ** 8 ? 0 : value < 2 ** 16 ? 1 : value < 2 ** 32 ? 2 : 3;
  if (!codes[width]) width++; // arrays have no head of 1 byte
  return [codes[width], ...Array.from({ length: 2 ** width }, (_, i) => (value / 256 ** (2 ** width - 1 - i)) % 256)];
}

/** Whole numbers, text, bytes (a copy of them) and arrays as msgpack, in pieces. */
function pack(value) {
  if (typeof value === "number") return [head(value, 127, 0, [0xcc, 0xcd, 0xce, 0xcf])];
  if (Array.isArray(value)) return [head(value.length, 15, 0x90, [0, 0xdc, 0xdd]), ...value.flatMap(pack)];
  const bytes = isText(value) ? utf8.encode(value) : value.slice();
  const codes = isText(value) ? [31, 0xa0, [0xd9, 0xda, 0xdb]] : [-1, 0, [0xc4, 0xc5, 0xc6]];
  return [head(bytes.length, ...codes), bytes];
}

/** Reads any msgpack; what frames have no use for, such as maps and negative numbers, is undefined. */
class Reader {
  at = 0;
  #items = MAX_MESSAGES + OVERHEAD; // that may come: nobody makes it allocate more than the bytes are worth

  constructor(bytes) {
    this.bytes = bytes;
  }

  #piece(size) {
    if (size > this.bytes.length - this.at) throw new BadFrame(BAD_FRAME, "truncated");
    return this.bytes.subarray(this.at, (this.at += size));
  }

  #uint(size) {
    let value = 0;
    for (let end = this.at + size; this.at < end; ) value = value * 256 + this.bytes[this.at++];
    if (Number.isNaN(value)) throw new BadFrame(BAD_FRAME, "truncated");
    return value;
  }

  /** The head of an array. */
  arrayHead() {
    const first = this.#uint(1);
    if (first >= 0x90 && first < 0xa0) return first - 0x90;
    if (first !== 0xdc && first !== 0xdd) throw new BadFrame(BAD_FRAME, "no array");
    return this.#uint(first === 0xdc ? 2 : 4);
  }

  #array(count, depth) {
    this.#items -= count;
    if (this.#items < 0) throw new BadFrame(TOO_BIG, "too many items in a frame");
    if (depth > MAX_DEPTH) throw new BadFrame(BAD_FRAME, "too deep");
    return Array.from({ length: count }, () => this.value(depth + 1));
  }

  value(depth = 0) {
    const first = this.#uint(1);
    if (first < 0x80) return first;
    if (first < 0x90) return void this.#array(2 * (first - 0x80), depth);
    if (first < 0xa0) return this.#array(first - 0x90, depth);
    if (first < 0xc0) return textOf(this.#piece(first - 0xa0));
    if (first === 0xc1) throw new BadFrame(BAD_FRAME, "no msgpack");
    if (first < 0xc4 || first >= 0xe0) return undefined; // nil, false, true; below 0
    if (first < 0xc7) return this.#piece(this.#uint(2 ** (first - 0xc4))).slice();
    if (first < 0xca) return void this.#piece(1 + this.#uint(2 ** (first - 0xc7)));
    if (first < 0xcc) return void this.#piece(first === 0xca ? 4 : 8);
    if (first < 0xd0) return this.#uint(2 ** (first - 0xcc));
    if (first < 0xd4) {
      const value = this.#uint(2 ** (first - 0xd0));
      return value < 2 ** (8 * 2 ** (first - 0xd0) - 1) ? value : undefined;
    }
    if (first < 0xd9) return void this.#piece(1 + 2 ** (first - 0xd4));
    if (first < 0xdc) return textOf(this.#piece(this.#uint(2 ** (first - 0xd9))));
    if (first < 0xde) return this.#array(this.#uint(first === 0xdc ? 2 : 4), depth);
    return void this.#array(2 * this.#uint(first === 0xde ? 2 : 4), depth);
  }
}

const KINDS = {
  n: Number.isSafeInteger,
  b: isBytes,
  s: isText,
  m: (value) => Array.isArray(value) && value.length > 0 && value.every((item) => isText(item) || isBytes(item)),
};
const LAYOUTS = ["nm", "nnnb", "nnb", "nn", "bnnnnnn", "bnnnnnnnns", "nsn"]; // of DATA to BYE

/** The frame in a WebSocket message, `[type, ...fields]`, or BadFrame; of one numbered up to `rx`, no more than that. */
export function readFrame(data, rx = 0) {
  if (isText(data)) throw new BadFrame(BAD_FRAME, "a text frame");
  const reader = new Reader(new Uint8Array(data));
  const frame = [];
  for (const count = reader.arrayHead(); frame.length < count; ) {
    frame.push(reader.value());
    if (frame.length === 2 && frame.every(KINDS.n) && frame[0] <= PART && frame[1] <= rx) return frame;
  }
  if (reader.at < reader.bytes.length) throw new BadFrame(BAD_FRAME, "trailing bytes");
  const [type, ...fields] = frame;
  const layout = LAYOUTS[type] ?? "";
  if (!KINDS.n(type) || (!layout && type < UNKNOWN) || ![...layout].every((kind, i) => KINDS[kind](fields[i])))
    throw new BadFrame(BAD_FRAME, "not a frame of version 1");
  if (type === DATA && fields[1].length > MAX_MESSAGES) throw new BadFrame(TOO_BIG, "too many messages in a frame");
  return frame;
}

/** The bytes of a frame. */
export function writeFrame(...fields) {
  return joined(pack(fields));
}

// Connections

/** Call back when the present turn of the event loop is over; browsers delay timers, but not messages. */
const soon =
  globalThis.setImmediate ??
  ((call) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), call());
    port2.postMessage(0);
  });

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A message as it is sent: text, or its bytes. */
function content(message) {
  if (isText(message) || isBytes(message)) return message;
  if (message instanceof ArrayBuffer) return new Uint8Array(message);
  if (ArrayBuffer.isView(message)) return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  throw new TypeError("a message is a string, an ArrayBuffer or a view of one");
}

/** Bytes of a message, if that matters: no more than three for each unit of a string. */
const sizeOf = (data, most) => (isText(data) && 3 * data.length > most ? utf8.encode(data) : data).length;

class Timeout extends Error {}

/** Open a socket: `opened` is called as soon as it is, and calls back when it is of use, or is not. */
async function dial({ WebSocket, url }, protocols, ms, opened) {
  const ws = new WebSocket(url, protocols);
  let timer;
  try {
    return await new Promise((resolve, reject) => {
      timer = setTimeout(() => reject(new Timeout("the server did not answer in time")), ms);
      ws.binaryType = "arraybuffer";
      ws.onopen = () => opened(ws, resolve, reject);
      ws.onclose = ({ code, reason }) => reject(new ConnectionClosed(code, reason, `no connection: ${code} ${reason}`));
      // Node 20 may not say that it closed
      ws.onerror = () => setTimeout(() => ws.onclose?.({ code: 1006, reason: "" }));
    });
  } catch (error) {
    hangUp(ws, error instanceof BadFrame ? error.code : 1000);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Close a socket, and listen to it no more. */
function hangUp(ws, code, reason) {
  ws.onopen = ws.onmessage = ws.onclose = null;
  ws.close(code, reason);
}

/** Whether a server has agreed to speak the envelope. */
const speaks = (ws) => ws.protocol === NAME || ws.protocol.startsWith(`${NAME}+`);

/**
 * What `connect` gives. Iterate over it for messages, strings or Uint8Arrays: that ends when it is closed with 1000 or
 * 1001, and throws `ConnectionClosed` otherwise. Leaving the loop closes nothing.
 *
 * Events: `close` (with `code`, `reason`), and where it is reliable `detach`, when it broke and is to be resumed, and
 * `resume`.
 */
export class Connection extends EventTarget {
  _error = null; // once it is closed
  _closing = null; // code and reason, once `close` was called
  _sending = Promise.resolve(); // settled when all that `send` was called with is accepted, or refused
  #unread = [];
  #next = 0; // in #unread
  #waiters = [];

  constructor(protocol, reliable) {
    super();
    /** The application's subprotocol; "" for none. */
    this.protocol = protocol;
    /** Whether messages are acknowledged, and sent again after a break. */
    this.reliable = reliable;
    /** Resolved, with the error that tells how, once it is closed. */
    this.closed = new Promise((resolve) => (this._closed = resolve));
  }

  /**
   * The next message; rejects with `ConnectionClosed` when there will be none.
   * @returns {Promise<string|Uint8Array>}
   */
  async recv() {
    if (this._unread) return this.#take();
    if (this._error) throw this._error;
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) yield await this.recv();
    } catch (error) {
      if (error.name !== "ConnectionClosed" || (error.code !== 1000 && error.code !== 1001)) throw error;
    }
  }

  /** Resolves when the message is accepted. */
  async send(message) {
    const data = content(message);
    if (this._error || this._closing) throw this._error ?? new ConnectionClosed(1006, "closing");
    const accept = () => this._accept(data);
    return (this._sending = this._sending.then(accept, accept));
  }

  /** Sends what was accepted, and closes; resolves when it is closed. */
  async close(code = 1000, reason = "") {
    if (code !== 1000 && !(code >= 3000 && code <= 4999)) throw new RangeError(`close code ${code}`);
    if (utf8.encode(reason).length > 123) throw new RangeError("a close reason has 123 bytes at most");
    if (!this._error && !this._closing) {
      this._closing = [code, reason];
      this._unlessClosed(() => this._giveUp());
      await this._sending.catch(() => {});
      this._finish();
    }
    await this.closed;
  }

  get _unread() {
    return this.#unread.length - this.#next;
  }

  _put(messages) {
    this.#unread.push(...messages); // first all of them: who waits takes one, and the rest is not taken
    while (this.#waiters.length && this._unread) this.#waiters.shift().resolve(this.#take());
  }

  #take() {
    const message = this.#unread[this.#next];
    this.#unread[this.#next++] = undefined;
    if (!this._unread) this.#unread = [], this.#next = 0;
    this._taken();
    return message;
  }

  /** Called for each message that is handed out. */
  _taken() {}

  _emit(type, facts) {
    this.dispatchEvent(Object.assign(new Event(type), facts));
  }

  /** Call back when closing takes too long. */
  _unlessClosed(call) {
    const timer = setTimeout(call, TIMEOUT);
    this.closed.then(() => clearTimeout(timer));
  }

  _end(error) {
    if (this._error) return;
    this._error = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    this._closed(error);
    this._emit("close", { code: error.code, reason: error.reason });
  }
}

/** Ordinary WebSocket frames: nothing is acknowledged, and a break is the end. */
class PlainConnection extends Connection {
  #ws;

  constructor(ws) {
    super(ws.protocol, false);
    this.#ws = ws;
    ws.onmessage = ({ data }) => this._put([isText(data) ? data : new Uint8Array(data)]);
    ws.onclose = ({ code, reason }) => this._end(new ConnectionClosed(code, reason));
  }

  async _accept(data) {
    while (this.#ws.readyState === 1 && this.#ws.bufferedAmount >= REPLAY_BYTES) await sleep(10);
    if (this.#ws.readyState !== 1) throw this._error ?? new ConnectionClosed(1006, "closing");
    this.#ws.send(data);
  }

  async delivered() {
    throw new EnvelopeRefused();
  }

  _finish() {
    this.#ws.close(...this._closing);
  }

  _giveUp() {
    hangUp(this.#ws, ...this._closing);
    this._end(new ConnectionClosed(...this._closing));
  }
}

/** The sending half of a session: numbers what it sends, and keeps it until it was taken. */
class Outgoing {
  tx = 0; // the last number
  acked = 0; // frames up to it were taken
  #batch = []; // messages that are not in a frame yet
  #batchBytes = 0; // packed
  #written = 0; // frames up to it were written to the present socket
  #inFlight = 0; // bytes that are written and not acknowledged
  #kept = new Map(); // frames, and the messages that end in them, by number, until they are acknowledged
  #keptBytes = 0;

  constructor(theirs) {
    this.theirs = theirs;
    this.room = Math.min(theirs.maxFrame, FRAME) - OVERHEAD;
  }

  /** Whether no more is to be kept. */
  get isFull() {
    return this.#keptBytes + this.#batchBytes >= REPLAY_BYTES || this.#kept.size >= REPLAY_FRAMES;
  }

  get isWritten() {
    return this.#written === this.tx && !this.#batch.length;
  }

  get isTaken() {
    return this.acked === this.tx && !this.#batch.length;
  }

  add(message) {
    const [head, data] = pack(message);
    const size = head.length + data.length;
    const kept = isText(message) ? message : data;
    if (this.#batchBytes + size > this.room || this.#batch.length === MAX_MESSAGES) this.cut();
    if (size > this.room) return this.#addParts(kept, data);
    this.#batch.push(kept);
    this.#batchBytes += size;
  }

  #addParts(message, data) {
    for (let start = 0; start < data.length; start += this.room) {
      const isLast = start + this.room >= data.length;
      const flags = (isText(message) ? TEXT : 0) | (isLast ? LAST : 0);
      const frame = writeFrame(PART, this.tx + 1, flags, data.subarray(start, start + this.room));
      this.#keep(frame, isLast ? [message] : []);
    }
  }

  /** Number what has gathered; from then on it never changes. */
  cut() {
    if (!this.#batch.length) return;
    this.#keep(writeFrame(DATA, this.tx + 1, this.#batch), this.#batch);
    this.#batch = [];
    this.#batchBytes = 0;
  }

  #keep(frame, messages) {
    this.#kept.set(++this.tx, { frame, messages });
    this.#keptBytes += frame.length;
  }

  /** The frames that may be written now, and count as written: they exceed the window by one at most. */
  *due() {
    if (this.#inFlight < this.theirs.window) this.cut();
    while (this.#written < this.tx && this.#inFlight < this.theirs.window) {
      const { frame } = this.#kept.get(++this.#written);
      this.#inFlight += frame.length;
      yield frame;
    }
  }

  acknowledged(taken) {
    if (taken > this.#written) throw new BadFrame(BAD_FRAME, `frame ${taken} acknowledged before it was sent`);
    while (this.acked < taken) {
      const size = this.#kept.get(++this.acked).frame.length;
      this.#kept.delete(this.acked);
      this.#keptBytes -= size;
      this.#inFlight -= size;
    }
  }

  /** Over another socket, write what is above `rx` again. */
  goOnAt(rx) {
    this.#written = rx;
    this.#inFlight = 0;
    for (let seq = this.acked + 1; seq <= rx; seq++) this.#inFlight += this.#kept.get(seq).frame.length;
  }

  /** The messages that may not have been taken. */
  unacknowledged() {
    return [...this.#kept.values()].flatMap(({ messages }) => messages).concat(this.#batch);
  }
}

/** The receiving half. */
class Incoming {
  rx = 0; // frames up to it have arrived
  taken = 0; // frames up to it were handed to the application
  told = 0; // what the peer was told of that
  want = 0; // the peer asks to be told as soon as this frame was taken
  mustTell = true;
  #waiting = []; // frames that were not taken: number, messages up to its end, bytes
  #arrived = 0; // messages
  #bytes = 0; // of frames that the peer was not told of
  #takenBytes = 0; // of those, in frames that were taken
  #pieces = null; // of a message whose last part has not arrived
  #piecesBytes = 0;

  constructor(ours) {
    this.ours = ours;
  }

  /** The messages of a frame; none if it has arrived before. */
  receive(type, seq, fields, size) {
    if (seq <= this.rx) {
      this.mustTell = true; // it was sent again because the peer does not know
      return [];
    }
    if (seq > this.rx + 1) throw new BadFrame(GAP, `frame ${seq} after ${this.rx}`);
    if (this.#bytes > this.ours.window) throw new BadFrame(TOO_BIG, "more than the window");
    const messages = this.#open(type, fields);
    this.rx = seq;
    this.#arrived += messages.length;
    this.#waiting.push([seq, this.#arrived, size]);
    this.#bytes += size;
    return messages;
  }

  #open(type, [first, second]) {
    const { maxFrame, maxMessage } = this.ours;
    if (type === DATAZ) {
      const isTooBig = first > MAX_MESSAGES || second > maxFrame;
      throw new BadFrame(isTooBig ? TOO_BIG : BAD_FRAME, "compressed, though no codec was agreed on");
    }
    if (type === PART) return this.#join(first, second);
    if (this.#pieces) throw new BadFrame(BAD_FRAME, "a message in the middle of another");
    if (maxMessage < maxFrame && first.some((message) => sizeOf(message, maxMessage) > maxMessage))
      throw new BadFrame(TOO_BIG, "a message that is too large");
    return first;
  }

  #join(flags, piece) {
    this.#piecesBytes += piece.length;
    if (this.#piecesBytes > this.ours.maxMessage) throw new BadFrame(TOO_BIG, "a message that is too large");
    this.#pieces ??= [];
    if (piece.length) this.#pieces.push(piece);
    if (!(flags & LAST)) return [];
    const data = joined(this.#pieces);
    this.#pieces = null;
    this.#piecesBytes = 0;
    return [flags & TEXT ? textOf(data) : data];
  }

  /** So many messages were not taken yet; true if the peer has to be told now of those that were. */
  left(unread) {
    while (this.#waiting.length && this.#waiting[0][1] <= this.#arrived - unread) {
      const [seq, , size] = this.#waiting.shift();
      this.taken = seq;
      this.#takenBytes += size;
    }
    const isWanted = this.told < this.want && this.want <= this.taken;
    const isMuch = this.taken - this.told >= ACK_FRAMES || this.#takenBytes * 4 >= this.ours.window;
    return this.mustTell || isWanted || isMuch;
  }

  ack(want) {
    this.told = this.taken;
    this.#bytes -= this.#takenBytes;
    this.#takenBytes = 0;
    this.mustTell = false;
    return writeFrame(ACK, this.taken, want);
  }
}

/** A session, over one socket after another. */
class ReliableConnection extends Connection {
  #how;
  #ws = null; // while it is attached
  #sid = new Uint8Array();
  #ttl = 0;
  #outgoing = new Outgoing(OURS);
  #incoming;
  #waiting = []; // who waits for anything to change
  #want = 0; // the frame that the peer has to acknowledge as soon as it has taken it
  #isDue = false; // `#advance` is going to be called
  #ackTimer = null;
  #isFinal = false; // all is accepted that will be
  #saidBye = false; // on this socket
  #peerBye = null; // code and reason

  constructor(how, ws, begun, failed) {
    super(ws.protocol.slice(NAME.length + 1), true);
    this.#how = how;
    this.#incoming = new Incoming(how.limits);
    this.#greet(ws, begun, failed);
  }

  // Handshake, break and resume

  #greet(ws, done, failed) {
    ws.onmessage = ({ data }) => {
      try {
        const [type, ...fields] = readFrame(data);
        if (type !== WELCOME) throw new BadFrame(BAD_FRAME, "WELCOME was expected");
        this.#welcome(ws, ...fields);
        done(this);
      } catch (error) {
        failed(error);
      }
    };
    const { maxFrame, window, maxMessage } = this.#how.limits;
    const first = this.#outgoing.acked + 1;
    ws.send(writeFrame(HELLO, this.#sid, this.#incoming.rx, first, maxFrame, window, 0, maxMessage));
  }

  #welcome(ws, sid, status, rx, first, maxFrame, window, _codec, ttl, maxMessage) {
    if (maxFrame < 4096 || window < 1) throw new BadFrame(BAD_FRAME, "limits that make no sense");
    const isNew = !this.#sid.length;
    if (isNew !== (status === NEW)) throw new BadFrame(BAD_FRAME, `status ${status}`);
    const { acked, tx } = this.#outgoing;
    const mayResume = first <= this.#incoming.rx + 1 && acked <= rx && rx <= tx && String(sid) === String(this.#sid);
    if (isNew) {
      this.#sid = sid;
      this.#ttl = ttl;
      this.#outgoing = new Outgoing({ maxFrame, window, maxMessage });
    } else if (status === RESUMED && mayResume) {
      this.#outgoing.goOnAt(rx);
      this.#incoming.mustTell = true;
    } else {
      ws.send(writeFrame(BYE, 1000, "", 0)); // the fresh session is of no use
      hangUp(ws, 1000);
      return status === ENDED ? this._end(new ConnectionClosed(1000)) : this.#lose("the server has forgotten it");
    }
    this.#ws = ws;
    ws.onmessage = ({ data }) => this.#receive(data);
    ws.onclose = ({ code, reason }) => ws === this.#ws && this.#broke(code, reason);
    this.#saidBye = false;
    this.#tellIfDue();
    this.#advance();
    if (!isNew) this._emit("resume");
  }

  #broke(code, reason) {
    this.#ws = null;
    if (this.#isDone) return this.#endInOrder();
    if (!RESUMABLE.has(code)) return this.#lose("the server closed it", code, reason);
    this._emit("detach", { code, reason });
    this.#reconnect();
  }

  async #reconnect() {
    const { offer, reconnectDelays: delays } = this.#how;
    const over = performance.now() + this.#ttl;
    const left = () => over - performance.now();
    for (let attempt = 0; left() > 0; attempt++) {
      try {
        return await dial(this.#how, offer, Math.min(left(), TIMEOUT), (ws, done, failed) => {
          if (this._error) failed(this._error);
          else if (!speaks(ws)) failed(new EnvelopeRefused());
          else this.#greet(ws, done, failed);
        });
      } catch (error) {
        if (this._error) return;
        const mayPass = error instanceof Timeout || (error instanceof ConnectionClosed && RESUMABLE.has(error.code));
        if (!mayPass) return this.#lose(`the server refused to go on: ${error.message}`);
      }
      const delay = (delays[attempt] ?? delays.at(-1)) * (0.5 + Math.random()); // lest all clients come at once
      await sleep(Math.max(0, Math.min(delay, left())));
      if (this._error) return;
    }
    this.#lose(`the server could not be reached within ${this.#ttl / 1000} s`);
  }

  // Sending

  async _accept(data) {
    const most = this.#outgoing.theirs.maxMessage;
    if (sizeOf(data, most) > most) throw new RangeError(`a message of more than ${most} bytes, the peer's limit`);
    await this.#until(() => !this.#outgoing.isFull);
    if (this.#isOver) throw this._error ?? new ConnectionClosed(...this.#peerBye);
    this.#outgoing.add(data);
    if (!this.#isDue) soon(() => this.#advance());
    this.#isDue = true;
  }

  /** Whether nothing more will be delivered. */
  get #isOver() {
    return this._error !== null || this.#peerBye !== null;
  }

  async #until(isSo) {
    while (!isSo() && !this.#isOver) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Whatever has changed: let others go on, write what the window allows, and close when all is done. */
  #advance() {
    this.#isDue = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
    if (!this.#ws) return;
    if (!this.#peerBye) for (const frame of this.#outgoing.due()) this.#ws.send(frame);
    if (!this.#saidBye && this.#mayEnd) this.#sayBye();
    if (this.#saidBye && this._closing && this.#isDone) this.#ws.close(...this._closing);
  }

  /** Resolves when the peer's application has taken all that was sent before. */
  async delivered() {
    await this._sending.catch(() => {});
    this.#outgoing.cut();
    const seq = this.#outgoing.tx;
    if (this.#outgoing.acked < seq && !this.#isOver) {
      this.#want = seq;
      this.#advance();
      this.#tell();
      await this.#until(() => this.#outgoing.acked >= seq);
    }
    if (this.#outgoing.acked >= seq) return;
    throw this._error instanceof SessionLost ? this._error : new DeliveryUnknown(this.#outgoing.unacknowledged());
  }

  // Receiving

  #receive(data) {
    try {
      this.#handle(readFrame(data, this.#incoming.rx), data.byteLength);
    } catch (error) {
      if (!(error instanceof BadFrame)) throw error;
      hangUp(this.#ws, error.code, error.reason);
      this.#lose(error.reason, error.code, error.reason);
    }
  }

  #handle([type, first, ...fields], size) {
    if (type <= PART) this._put(this.#incoming.receive(type, first, fields, size));
    else if (type === ACK) {
      this.#outgoing.acknowledged(first);
      if (fields[0]) this.#incoming.want = fields[0]; // the latest: a wrong one must not hide those after it
    } else if (type === BYE && !this.#peerBye) {
      this.#outgoing.acknowledged(fields[1]);
      this.#peerBye = [first, fields[0]];
      this.#want = 0;
    } else if (type === HELLO || type === WELCOME) throw new BadFrame(BAD_FRAME, "a second handshake");
    this.#tellIfDue();
    this.#advance();
  }

  _taken() {
    this.#tellIfDue();
    if (this.#peerBye) this.#advance();
  }

  /** Tell the peer what was taken, now or before long. */
  #tellIfDue() {
    if (this.#incoming.left(this._unread)) this.#tell();
    else if (this.#incoming.taken > this.#incoming.told) this.#ackTimer ??= setTimeout(() => this.#tell(), ACK_DELAY);
  }

  #tell() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = null;
    const want = this.#want > this.#outgoing.acked ? this.#want : 0;
    if (this.#ws && !this.#saidBye) this.#ws.send(this.#incoming.ack(want));
  }

  // The end

  _finish() {
    this.#isFinal = true;
    this.#advance();
  }

  /** Whether it is time for BYE: all was sent and the application closes, or the peer closes and all was taken. */
  get #mayEnd() {
    if (this.#peerBye) return this._closing !== null || !this._unread;
    return this.#isFinal && this.#outgoing.isWritten;
  }

  #sayBye() {
    this.#tell();
    this.#saidBye = true;
    this.#ws.send(writeFrame(BYE, ...(this.#peerBye ?? this._closing), this.#incoming.taken));
    if (!this._closing) this._unlessClosed(() => this._giveUp()); // the peer closes
  }

  _giveUp() {
    if (this.#ws) hangUp(this.#ws, ...(this._closing ?? [1000]));
    this.#isDone ? this.#endInOrder() : this.#lose("the server did not answer before it was closed");
  }

  get #isDone() {
    return this.#peerBye !== null || (this.#saidBye && this.#outgoing.isTaken);
  }

  #endInOrder() {
    this._end(new ConnectionClosed(...(this.#peerBye ?? this._closing)));
  }

  #lose(why, code, reason) {
    this._end(new SessionLost(why, this.#outgoing.unacknowledged(), code, reason));
  }

  _end(error) {
    this.#ws = null;
    clearTimeout(this.#ackTimer);
    super._end(error);
    this.#advance();
  }
}

/**
 * Open a connection. Where the server does not speak the envelope it is plain: see `Connection.reliable`.
 *
 * @param {string|URL} url
 * @param {object} [options]
 * @param {string|string[]} [options.protocols] the application's subprotocols
 * @param {boolean} [options.reliable] true: reject with `EnvelopeRefused` rather than be plain; false: be plain
 * @param {Function} [options.WebSocket] the class to use, where there is no global one
 * @param {number[]} [options.reconnectDelays] milliseconds between attempts, of which each is half as long to half as
 *   long again, by chance; the last serves for ever
 * @param {{maxFrame: number, window: number, maxMessage: number}} [options.limits] bytes that this end takes: in a
 *   frame, in all frames that the application has not taken, and in a message; by default 1 MiB, 1 MiB and 16 MiB
 * @returns {Promise<Connection>} rejects with `ConnectionClosed` where the server cannot be reached
 */
export async function connect(url, options = {}) {
  const { protocols = [], reliable, WebSocket = globalThis.WebSocket, reconnectDelays = DELAYS, limits } = options;
  if (!WebSocket) throw new TypeError("no global WebSocket, as Node has from version 22 on: give one as an option");
  const inner = [protocols].flat();
  const offer = inner.length ? [...inner.map((name) => `${NAME}+${name}`), ...inner] : [NAME];
  const how = { url, offer, WebSocket, reconnectDelays, limits: { ...OURS, ...limits } };
  const plain = (ws, done) => done(new PlainConnection(ws));
  let connection, isAgreed;
  if (reliable !== false) {
    try {
      connection = await dial(how, offer, TIMEOUT, (ws, done, failed) => {
        isAgreed = speaks(ws);
        isAgreed ? new ReliableConnection(how, ws, done, failed) : plain(ws, done);
      });
    } catch (error) { // it broke, or was refused by who knows why; all else comes of selecting what is not known
      if (isAgreed && error instanceof ConnectionClosed && (error.code === 1006 || error.code >= 4900)) throw error;
    }
  }
  connection ??= await dial(how, inner, TIMEOUT, plain); // browsers fail where a server selects none of what is offered
  if (reliable && !connection.reliable) {
    connection.close();
    throw new EnvelopeRefused();
  }
  return connection;
}
