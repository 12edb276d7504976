// penstock.js 0.1.0 - MIT License - Copyright (c) 2026 The Penstock developers
/**
 * A client of `Penstock: v1` for browsers and Node: WebSocket messages that leave many to one frame, are numbered and
 * acknowledged, and arrive once and in order though the connection breaks. No dependencies. See README.md.
 */

export const VERSION = "0.1.0";
const NAME = "penstock.v1";
const [DATA, DATAZ, PART, ACK, HELLO, WELCOME, BYE, UNKNOWN] = [0, 1, 2, 3, 4, 5, 6, 16];
const [NEW, RESUMED, FORGOTTEN, LACKING, ENDED] = [0, 1, 2, 3, 4]; // what a WELCOME says
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

function textOf(bytes) {
  try {
    return text.decode(bytes);
  } catch {
    throw new BadFrame(BAD_TEXT, "invalid UTF-8");
  }
}

function joined(pieces) {
  const writer = new Writer(pieces.reduce((sum, piece) => sum + piece.length, 0));
  for (const piece of pieces) writer.raw(piece);
  return writer.bytes;
}

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
    for (let rest = 2 ** width - 1; rest >= 0; rest--) this.bytes[this.length++] = value / 256 ** rest; // modulo 256
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

  value(value) {
    if (typeof value === "number") return this.number(value);
    if (typeof value === "string") return this.text(value);
    if (value instanceof Uint8Array) return this.binary(value);
    return value.reduce((_, item) => this.value(item), this.array(value.length));
  }

  /** What was written; a copy. */
  done() {
    return this.bytes.slice(0, this.length);
  }
}

/** Reads them; each method throws BadFrame where something else comes. */
class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  #uint(size) {
    let value = 0;
    for (let end = this.at + size; this.at < end; ) value = value * 256 + this.bytes[this.at++];
    if (!(value < 2 ** 53)) throw new BadFrame(BAD_FRAME, "truncated, or a number above 2^53-1"); // NaN behind the end
    return value;
  }

  #piece(size) {
    if (size > this.bytes.length - this.at) throw new BadFrame(BAD_FRAME, "truncated");
    return this.bytes.subarray(this.at, (this.at += size));
  }

  /** A size: in the first byte, from `fix` on; or behind it, in 2 ** `width` bytes for `code` and more up to `last`. */
  #size(fix, most, code, width, last) {
    const first = this.#uint(1);
    if (first >= fix && first <= fix + most) return first - fix;
    if (first < code || first > last) throw new BadFrame(BAD_FRAME, `unexpected ${first}`);
    return this.#uint(2 ** (first - code + width));
  }

  number() {
    const first = this.bytes[this.at];
    const value = this.#size(0, 127, first < 0xd0 ? 0xcc : 0xd0, 0, 0xd3);
    if (first >= 0xd0 && value >= 2 ** (8 * 2 ** (first - 0xd0) - 1)) throw new BadFrame(BAD_FRAME, "below 0");
    return value;
  }

  text() {
    return textOf(this.#piece(this.#size(0xa0, 31, 0xd9, 0, 0xdb)));
  }

  binary() {
    return this.#piece(this.#size(0, -1, 0xc4, 0, 0xc6)).slice();
  }

  /** The head of an array. */
  array() {
    return this.#size(0x90, 15, 0xdc, 1, 0xdd);
  }

  message() {
    const first = this.bytes[this.at];
    return first >= 0xc4 && first <= 0xc6 ? this.binary() : this.text();
  }

  /** Whatever comes, as it is: a later version may have put anything there. */
  skip() {
    const start = this.at;
    for (let left = 1; left > 0; left--) {
      const first = this.#uint(1);
      if (first < 0x80 || first >= 0xe0 || first === 0xc0 || first === 0xc2 || first === 0xc3) continue;
      if (first < 0x90) left += 2 * (first - 0x80);
      else if (first < 0xa0) left += first - 0x90;
      else if (first < 0xc0) this.#piece(first - 0xa0);
      else if (first >= 0xc4 && first < 0xca) this.#piece(this.#uint(2 ** ((first - 0xc4) % 3)) + (first > 0xc6));
      else if (first >= 0xca && first < 0xd9) this.#piece(SIZES[first - 0xca]);
      else if (first >= 0xd9 && first < 0xdc) this.#piece(this.#uint(2 ** (first - 0xd9)));
      else if (first >= 0xdc) left += this.#uint(first % 2 ? 4 : 2) * (first < 0xde ? 1 : 2);
      else throw new BadFrame(BAD_FRAME, "no msgpack");
    }
    return this.bytes.subarray(start, this.at);
  }
}

const SIZES = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17]; // of floats, numbers and small extensions, from 0xca on
const LAYOUTS = ["na", "nnnb", "nnb", "nn", "bnnnnnn", "bnnnnnnnns", "nsn"]; // of DATA to BYE
const READING = { n: "number", b: "binary", s: "text", a: "skip" };

/** The frame in a WebSocket message, `[type, ...fields]`, or BadFrame; see `readMessages` for DATA. For tests. */
export function readFrame(data) {
  if (typeof data === "string") throw new BadFrame(BAD_FRAME, "a text frame");
  const reader = new Reader(new Uint8Array(data));
  const count = reader.array();
  const frame = count ? [reader.number()] : [];
  const layout = LAYOUTS[frame[0]] ?? "";
  if (count <= layout.length || (!layout && !(frame[0] >= UNKNOWN))) throw new BadFrame(BAD_FRAME, "no frame");
  for (const letter of layout) frame.push(reader[READING[letter]]());
  for (let more = count - frame.length; more > 0; more--) reader.skip();
  if (reader.at < reader.bytes.length) throw new BadFrame(BAD_FRAME, "trailing bytes");
  return frame;
}

/** The messages in the array of a DATA frame, or BadFrame. For tests. */
export function readMessages(array) {
  const reader = new Reader(array);
  const count = reader.array();
  if (count > MAX_MESSAGES) throw new BadFrame(TOO_BIG, `${count} messages in a frame`);
  if (!count) throw new BadFrame(BAD_FRAME, "no messages");
  return Array.from({ length: count }, () => reader.message());
}

/** The bytes of a frame. For tests. */
export function writeFrame(...fields) {
  const writer = new Writer().array(fields.length);
  for (const field of fields) writer.value(field);
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

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Timeout extends Error {}

/** Open a socket: `opened` is called as soon as it is, and calls back when it is of use, or is not. */
function dial({ WebSocket, url }, protocols, ms, opened) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, protocols);
    const timer = setTimeout(() => failed(new Timeout("the server did not answer in time")), ms);
    let isSettled = false;
    const done = (connection) => {
      isSettled = true;
      clearTimeout(timer);
      resolve(connection);
    };
    const failed = (error) => {
      if (isSettled) return;
      isSettled = true;
      clearTimeout(timer);
      hangUp(ws, error instanceof BadFrame ? error.code : 1000);
      reject(error);
    };
    ws.binaryType = "arraybuffer";
    ws.onopen = () => opened(ws, done, failed);
    ws.onclose = ({ code, reason }) => failed(new ConnectionClosed(code, reason, `no connection: ${code} ${reason}`));
    ws.onerror = () => setTimeout(() => ws.onclose?.({ code: 1006, reason: "" })); // Node 20 may not say that it closed
  });
}

/** Close a socket, and listen to it no more. */
function hangUp(ws, code, reason) {
  ws.onopen = ws.onmessage = ws.onclose = null;
  ws.close(code, reason);
}

/** Whether a server has agreed to speak the envelope. */
const speaks = (ws) => ws.protocol === NAME || ws.protocol.startsWith(`${NAME}+`);

/** Whether a message has more than `most` bytes. */
function isLarger(data, most) {
  if (data.length > most || 3 * data.length <= most) return data.length > most;
  return typeof data === "string" && utf8.encode(data).length > most;
}

function checkClose(code, reason) {
  if (code !== 1000 && !(code >= 3000 && code <= 4999)) throw new RangeError(`close code ${code}`);
  if (utf8.encode(reason).length > 123) throw new RangeError("a close reason has 123 bytes at most");
}

/**
 * What `connect` gives. Iterate over it for messages, strings or Uint8Arrays: that ends when it is closed with 1000 or
 * 1001, and throws `ConnectionClosed` otherwise. Leaving the loop closes nothing.
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

  /**
   * The next message; rejects with `ConnectionClosed` when there will be none.
   * @returns {Promise<string|Uint8Array>}
   */
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

  get _unread() {
    return this.#unread.length - this.#next;
  }

  get _error() {
    return this.#error;
  }

  _put(messages) {
    this.#unread.push(...messages); // first all of them: who waits takes one, and the rest is not taken
    while (this.#waiters.length && this._unread) this.#waiters.shift().resolve(this.recv());
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
    ws.onmessage = ({ data }) => this._put([typeof data === "string" ? data : new Uint8Array(data)]);
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
    this._unlessClosed(() => this._end(new ConnectionClosed(code, reason)));
    await this.closed;
  }
}

/** The sending half of a session: numbers what it sends, and keeps it until it was taken. */
class Outgoing {
  batch = new Writer(); // messages that are not in a frame yet
  tx = 0; // the last number
  acked = 0; // frames up to it were taken
  #written = 0; // frames up to it were written to the present socket
  #inFlight = 0; // bytes that are written and not acknowledged
  #kept = new Map(); // frames by their numbers, until they are acknowledged
  #keptBytes = 0;
  #large = new Map(); // whole messages by the numbers of their last parts: parts are acknowledged one by one

  constructor(theirs) {
    this.theirs = theirs;
    this.room = Math.min(theirs.maxFrame, FRAME) - OVERHEAD;
  }

  /** Whether no more is to be kept. */
  get isFull() {
    return this.#keptBytes + this.batch.length >= REPLAY_BYTES || this.#kept.size >= REPLAY_FRAMES;
  }

  get isWritten() {
    return this.#written === this.tx && !this.batch.count;
  }

  get isTaken() {
    return this.acked === this.tx && !this.batch.count;
  }

  add(message) {
    const isText = typeof message === "string";
    const most = 5 + message.length * (isText ? 3 : 1); // bytes, with its head
    if (most > this.room) return this.#addParts(message, isText);
    if (this.batch.length + most > this.room || this.batch.count === MAX_MESSAGES) this.cut();
    this.batch.value(message).count++;
  }

  #addParts(message, isText) {
    this.cut();
    const data = isText ? utf8.encode(message) : message.slice();
    for (let start = 0; start < data.length; start += this.room) {
      const flags = (isText ? TEXT : 0) | (start + this.room >= data.length ? LAST : 0);
      this.#keep(writeFrame(PART, this.tx + 1, flags, data.subarray(start, start + this.room)));
    }
    this.#large.set(this.tx, isText ? message : data);
  }

  /** Number what has gathered; from then on it never changes. */
  cut() {
    const { bytes, length, count } = this.batch;
    if (!count) return;
    const head = new Writer(length + OVERHEAD).array(3).number(DATA).number(this.tx + 1).array(count);
    this.#keep(head.raw(bytes.subarray(0, length)).done());
    this.batch.length = this.batch.count = 0;
  }

  #keep(frame) {
    this.#kept.set(++this.tx, frame);
    this.#keptBytes += frame.length;
  }

  /** The frames that may be written now, and count as written: they exceed the window by one at most. */
  *due() {
    if (this.#inFlight < this.theirs.window) this.cut();
    while (this.#written < this.tx && this.#inFlight < this.theirs.window) {
      const frame = this.#kept.get(++this.#written);
      this.#inFlight += frame.length;
      yield frame;
    }
  }

  acknowledged(taken) {
    if (taken > this.#written) throw new BadFrame(BAD_FRAME, `frame ${taken} acknowledged before it was sent`);
    while (this.acked < taken) {
      const size = this.#kept.get(++this.acked).length;
      this.#kept.delete(this.acked);
      this.#large.delete(this.acked);
      this.#keptBytes -= size;
      this.#inFlight -= size;
    }
  }

  /** Over another socket, write what is above `rx` again. */
  goOnAt(rx) {
    this.#written = rx;
    this.#inFlight = 0;
    for (let seq = this.acked + 1; seq <= rx; seq++) this.#inFlight += this.#kept.get(seq).length;
  }

  /** The messages that may not have been taken. */
  unacknowledged() {
    this.cut();
    return [...this.#kept].flatMap(([seq, frame]) => {
      const [type, , array] = readFrame(frame);
      return type === DATA ? readMessages(array) : this.#large.has(seq) ? [this.#large.get(seq)] : [];
    });
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
  #arrived; // messages
  #bytes = 0; // of frames that the peer was not told of
  #takenBytes = 0; // of those, in frames that were taken
  #pieces = null;
  #piecesBytes = 0;

  /** @param unread messages of a session before this one */
  constructor(ours, unread) {
    this.ours = ours;
    this.#arrived = unread;
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
    if (type === DATAZ) {
      const isTooBig = first > MAX_MESSAGES || second > this.ours.maxFrame;
      throw new BadFrame(isTooBig ? TOO_BIG : BAD_FRAME, "compressed, though no codec was agreed on");
    }
    if (type === PART) return this.#join(first, second);
    if (this.#pieces) throw new BadFrame(BAD_FRAME, "a message in the middle of another");
    const messages = readMessages(first);
    const { maxFrame, maxMessage } = this.ours;
    if (maxMessage < maxFrame && messages.some((message) => isLarger(message, maxMessage)))
      throw new BadFrame(TOO_BIG, "a message that is too large");
    return messages;
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
  #senders = []; // who waits for room
  #receipts = []; // who waits for an acknowledgement
  #isDue = false; // `#advance` is going to be called
  #ackTimer = null;
  #closing = null; // code and reason, once `close` was called
  #saidBye = false; // on this socket
  #peerBye = null; // code and reason

  constructor(how, ws, begun, failed) {
    super(ws.protocol.slice(NAME.length + 1), true);
    this.#how = how;
    this.#incoming = new Incoming(how.limits, 0);
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
    const { acked } = this.#outgoing;
    ws.send(writeFrame(HELLO, this.#sid, this.#incoming.rx, acked + 1, maxFrame, window, 0, maxMessage));
  }

  #welcome(ws, sid, status, rx, first, maxFrame, window, _codec, ttl, maxMessage) {
    if (maxFrame < 4096 || window < 1) throw new BadFrame(BAD_FRAME, "limits that make no sense");
    const isNew = !this.#sid.length;
    if (isNew !== (status === NEW)) throw new BadFrame(BAD_FRAME, `status ${status}`);
    const { acked, tx } = this.#outgoing;
    const mayResume = first <= this.#incoming.rx + 1 && acked <= rx && rx <= tx && String(sid) === String(this.#sid);
    if (status === RESUMED && mayResume) {
      this.#outgoing.goOnAt(rx);
      this.#incoming.mustTell = true;
    } else if (isNew || (this.#how.onsessionlost === "resend" && (status === FORGOTTEN || status === LACKING))) {
      this.#sid = sid;
      this.#ttl = ttl;
      this.#begin({ maxFrame, window, maxMessage });
    } else {
      ws.send(writeFrame(BYE, 1000, "", 0)); // the fresh session is of no use
      hangUp(ws, 1000);
      if (status === ENDED) return this.#end(new ConnectionClosed(1000));
      return this.#lose("the server has forgotten it");
    }
    this.#ws = ws;
    ws.onmessage = ({ data }) => this.#receive(data);
    ws.onclose = ({ code, reason }) => ws === this.#ws && this.#broke(code, reason);
    this.#saidBye = false;
    this.#tellIfDue();
    this.#advance();
    if (!isNew) this._emit("resume");
  }

  /** Begin a session, with what may have been lost of the one before. */
  #begin(theirs) {
    const messages = this.#outgoing.unacknowledged();
    this.#outgoing = new Outgoing(theirs);
    this.#incoming = new Incoming(this.#how.limits, this._unread);
    for (const message of messages) this.#outgoing.add(message);
    this.#outgoing.cut();
    for (const receipt of this.#receipts) receipt.seq = this.#outgoing.tx;
  }

  #broke(code, reason) {
    this.#ws = null;
    if (this.#isDone) return this.#endInOrder();
    if (!RESUMABLE.has(code)) return this.#lose("the server closed it", code, reason);
    this._emit("detach", { code, reason });
    this.#reconnect();
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
        const mayPass = error instanceof Timeout || (error instanceof ConnectionClosed && RESUMABLE.has(error.code));
        if (!mayPass) return this.#lose(`the server refused to go on: ${error.message}`);
      }
      delay = delays.next().value ?? delay; // the last one serves for ever
      await sleep(Math.max(0, Math.min(delay, over - performance.now())));
      if (this._error) return;
    }
    this.#lose(`the server could not be reached within ${this.#ttl / 1000} s`);
  }

  // Sending

  send(message) {
    try {
      const data = content(message);
      const most = this.#outgoing.theirs.maxMessage;
      if (isLarger(data, most)) throw new RangeError(`a message of more than ${most} bytes, the peer's limit`);
      if (this._error || this.#closing || this.#peerBye) throw this._error ?? new ConnectionClosed(1006, "closing");
      return this.#accept(data);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #accept(data) {
    if (this.#senders.length || this.#outgoing.isFull) {
      const sender = { data };
      this.#senders.push(sender);
      return (sender.accepted = new Promise((resolve, reject) => Object.assign(sender, { resolve, reject })));
    }
    this.#outgoing.add(data);
    if (!this.#isDue) soon(() => this.#advance());
    this.#isDue = true;
    return Promise.resolve();
  }

  /** Whatever has changed: let senders go on, write what the window allows, and close when all is done. */
  #advance() {
    this.#isDue = false;
    while (this.#senders.length && !this.#outgoing.isFull) {
      const { data, resolve } = this.#senders.shift();
      this.#outgoing.add(data);
      resolve();
    }
    if (!this.#ws) return;
    if (!this.#peerBye) for (const frame of this.#outgoing.due()) this.#ws.send(frame);
    if (!this.#saidBye && this.#mayEnd) this.#sayBye();
    if (this.#saidBye && this.#closing && this.#isDone) this.#ws.close(...this.#closing);
  }

  async delivered() {
    if (this.#senders.length) await this.#senders.at(-1).accepted;
    this.#outgoing.cut();
    if (this.#outgoing.isTaken) return;
    if (this._error || this.#peerBye) throw this.#unknown();
    const seq = this.#outgoing.tx;
    const receipt = new Promise((resolve, reject) => this.#receipts.push({ seq, resolve, reject }));
    this.#advance();
    this.#tell();
    await receipt;
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

  #handle([type, first, ...fields], size) {
    if (type <= PART) this._put(this.#incoming.receive(type, first, fields, size));
    else if (type === ACK) this.#acknowledged(first, fields[0]);
    else if (type === BYE && !this.#peerBye) this.#endsInOrder([first, fields[0]], fields[1]);
    else if (type === HELLO || type === WELCOME) throw new BadFrame(BAD_FRAME, "a second handshake");
    this.#tellIfDue();
    this.#advance();
  }

  #acknowledged(taken, want) {
    this.#outgoing.acknowledged(taken);
    if (want) this.#incoming.want = want; // the latest: a wrong one must not hide those after it
    while (this.#receipts.length && this.#receipts[0].seq <= taken) this.#receipts.shift().resolve();
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
    if (this.#ws && !this.#saidBye) this.#ws.send(this.#incoming.ack(this.#receipts[0]?.seq ?? 0));
  }

  // The end

  async close(code = 1000, reason = "") {
    checkClose(code, reason);
    if (!this._error && !this.#closing) {
      this.#closing = [code, reason];
      this.#expectEnd();
      this.#advance();
    }
    await this.closed;
  }

  #endsInOrder(bye, taken) {
    this.#acknowledged(taken, 0);
    this.#peerBye = bye;
    this.#refuse(new DeliveryUnknown(this.#outgoing.unacknowledged()), new ConnectionClosed(...bye));
  }

  /** Whether it is time for BYE: all was sent and the application closes, or the peer closes and all was taken. */
  get #mayEnd() {
    if (this.#peerBye) return this.#closing !== null || !this._unread;
    return this.#closing !== null && !this.#senders.length && this.#outgoing.isWritten;
  }

  #sayBye() {
    this.#tell();
    this.#saidBye = true;
    this.#ws.send(writeFrame(BYE, ...(this.#peerBye ?? this.#closing), this.#incoming.taken));
    if (!this.#closing) this.#expectEnd(); // the peer closes
  }

  #expectEnd() {
    this._unlessClosed(() => {
      if (this.#ws) hangUp(this.#ws, ...(this.#closing ?? [1000]));
      this.#isDone ? this.#endInOrder() : this.#lose("the server did not answer before it was closed");
    });
  }

  get #isDone() {
    return this.#peerBye !== null || (this.#saidBye && this.#outgoing.isTaken);
  }

  #endInOrder() {
    this.#end(new ConnectionClosed(...(this.#peerBye ?? this.#closing)));
  }

  #lose(why, code, reason) {
    this.#end(new SessionLost(why, this.#outgoing.unacknowledged(), code, reason));
  }

  #end(error) {
    if (this._error) return;
    this.#ws = null;
    clearTimeout(this.#ackTimer);
    this._end(error);
    this.#refuse(this.#unknown(), error);
  }

  #unknown() {
    return this._error instanceof SessionLost ? this._error : new DeliveryUnknown(this.#outgoing.unacknowledged());
  }

  /** Nothing more will be delivered. */
  #refuse(unknown, closed) {
    for (const receipt of this.#receipts.splice(0)) receipt.reject(unknown);
    for (const sender of this.#senders.splice(0)) sender.reject(closed);
  }
}

/**
 * The default of `reconnectDelays`: exponential, and jittered, so that clients do not come back all at once.
 * @returns {Generator<number>} milliseconds, for ever
 */
export function* backoff({ initial = 5000, minimum = 3100, maximum = 90_000, random = Math.random } = {}) {
  yield random() * initial;
  for (let step = minimum; ; step = Math.min(step * 1.618, maximum)) yield step * (0.5 + random() / 2);
}

/**
 * Open a connection. Where the server does not speak the envelope it is plain: see `Connection.reliable`.
 *
 * @param {string|URL} url
 * @param {object} [options]
 * @param {string|string[]} [options.protocols] the application's subprotocols
 * @param {boolean} [options.reliable] true: reject with `EnvelopeRefused` rather than be plain; false: be plain
 * @param {Function} [options.WebSocket] the class to use, where there is no global one
 * @param {Function} [options.onresume] a listener of the event `resume`
 * @param {"raise"|"resend"} [options.onsessionlost] what happens when the server has forgotten the session: an end with
 *   `SessionLost`, or what was not acknowledged is sent again on a new one (at least once then, not exactly once)
 * @param {number[]|function(): Iterable<number>} [options.reconnectDelays] milliseconds between attempts; the last
 *   serves for ever
 * @param {{maxFrame: number, window: number, maxMessage: number}} [options.limits] bytes that this end takes: in a
 *   frame, in all frames that the application has not taken, and in a message; by default 1 MiB, 1 MiB and 16 MiB
 * @returns {Promise<Connection>} rejects with `ConnectionClosed` where the server cannot be reached
 */
export async function connect(url, options = {}) {
  const { protocols = [], reliable, WebSocket = globalThis.WebSocket, onresume, onsessionlost = "raise" } = options;
  const { reconnectDelays = backoff, limits } = options;
  if (!WebSocket) throw new TypeError("no global WebSocket, as Node has from version 22 on: give one as an option");
  if (!["raise", "resend"].includes(onsessionlost)) throw new TypeError(`onsessionlost: "raise" or "resend"`);
  const inner = [protocols].flat();
  const offer = inner.length ? [...inner.map((name) => `${NAME}+${name}`), ...inner] : [NAME];
  const delays = () => (typeof reconnectDelays === "function" ? reconnectDelays() : reconnectDelays)[Symbol.iterator]();
  const how = { url, offer, WebSocket, onsessionlost, delays, limits: { ...OURS, ...limits } };
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
  if (onresume) connection.addEventListener("resume", onresume);
  return connection;
}
