/** The vectors that all implementations of the protocol share: see their README. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { connect, readFrame, writeFrame } from "../penstock.js";
import { ACK, DATA, fakeServer } from "./fake.js";

const FOLDER = new URL("../../../tests/vectors/", import.meta.url);
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");
const content = (message) => message.text ?? bytes(message.binary);
const turns = async (number = 3) => {
  while (number--) await new Promise(setImmediate);
};

/** A test for each case of a file, whose keys are all known. */
function each(file, keys, run, skipped = () => false) {
  const url = new URL(`${file}.json`, FOLDER);
  if (!existsSync(url)) return test(file, { skip: "the vectors are in the repository alone" });
  for (const one of JSON.parse(readFileSync(url, "utf8")))
    test(`${file}: ${one.name}`, { skip: skipped(one) }, async () => {
      for (const key of Object.keys(one)) assert.ok(["name", ...keys].includes(key), `unknown: ${key}`);
      await run(one);
    });
}

async function begin({ limits = {}, welcome = {} }) {
  const { max = 2 ** 20, window = 2 ** 20, max_message = 2 ** 20 } = limits;
  const server = fakeServer();
  const ours = { maxFrame: max, window, maxMessage: max_message };
  const connecting = connect("ws://here/", { WebSocket: server.WebSocket, reconnectDelays: [0], limits: ours });
  const socket = await server.socket();
  socket.welcome(welcome);
  return { conn: await connecting, socket, server };
}

const FIELDS = {
  0: ["seq", "messages"],
  1: ["seq", "n", "raw"],
  2: ["seq", "flags", "piece"],
  3: ["taken", "want"],
  4: ["sid", "rx", "first", "max", "window", "codecs", "max_message"],
  5: ["sid", "status", "rx", "first", "max", "window", "codec", "ttl_ms", "max_message", "node"],
  6: ["code", "reason", "taken"],
};

each("frames", ["hex", "frame", "canonical"], ({ hex: given, frame, canonical }) => {
  const expected = (FIELDS[frame.type] ?? []).map((name) => {
    if (name === "messages") return frame.messages.map(content);
    return name === "sid" || name === "piece" ? bytes(frame[name]) : frame[name];
  });
  const [type, ...fields] = readFrame(bytes(given));
  assert.deepEqual([type, ...fields.slice(0, expected.length)], [frame.type, ...expected]);
  if (canonical) assert.equal(hex(writeFrame(frame.type, ...expected)), given);
});

// No codec was agreed on: what is bad when it is inflated is as bad before.
each("bad-frames", ["hex", "text", "before", "written", "limits", "codec", "close"], async (one) => {
  const { conn, socket } = await begin(one);
  for (let i = 0; i < (one.written ?? 0); i++) {
    await conn.send("x");
    await turns();
  }
  for (const frame of one.before ?? []) socket.sayBytes(bytes(frame));
  assert.equal(socket.closedWith, null);
  socket.sayBytes(one.text ?? bytes(one.hex));
  assert.equal(socket.closedWith[0], one.close);
});

const isCompressed = (one) => "codec" in one && "this client agrees on no codec";
each(
  "deliveries",
  ["frames", "messages", "limits", "codec"],
  async (one) => {
    const { conn, socket } = await begin(one);
    for (const frame of one.frames) socket.sayBytes(bytes(frame));
    assert.equal(socket.closedWith, null);
    for (const message of one.messages) assert.deepEqual(await conn.recv(), content(message));
    socket.say(6, 1000, "", 0);
    socket.cut();
    await assert.rejects(conn.recv());
  },
  isCompressed,
);

// Small messages stand for the frames that were sent, since nothing sends small parts.
each(
  "resume",
  ["sent", "acked", "received", "peer", "first", "resumes", "replayed"],
  async ({ sent, acked, received, peer, first, resumes, replayed }) => {
    const { conn, socket, server } = await begin({ welcome: { sid: bytes(peer).slice(4, 36) } });
    for (let i = 0; i < sent.length; i++) {
      await conn.send("x");
      await turns();
    }
    socket.say(ACK, acked, 0);
    for (let seq = 1; seq <= received; seq++) socket.say(DATA, seq, ["x"]);
    const written = socket.sent.filter((frame) => readFrame(frame)[0] === DATA);
    socket.cut();
    const second = await server.socket(1);
    assert.equal(second.frames()[0][3], first);
    second.sayBytes(bytes(peer));
    await turns();
    assert.equal(second.closedWith === null, resumes);
    const again = second.sent.filter((frame) => readFrame(frame)[0] === DATA);
    assert.deepEqual(again, resumes ? written.slice(written.length - replayed.length) : []);
  },
  ({ peer }) => peer.startsWith("9804") && "a client gets no HELLO",
);

each("acknowledging", ["window", "steps"], async ({ window, steps }) => {
  let { conn, socket, server } = await begin({ limits: { window } });
  let unread = 0, told = 1;
  const acks = () => socket.sent.filter((frame) => readFrame(frame)[0] === ACK);
  for (const step of steps) {
    for (const key of Object.keys(step)) assert.ok(["arrives", "unread", "due", "resumed", "says"].includes(key), key);
    if ("arrives" in step) {
      const [type, seq, array] = readFrame(bytes(step.arrives));
      socket.sayBytes(bytes(step.arrives));
      if (type === DATA && !(socket.seqs ??= new Set()).has(seq)) unread += array.length;
      socket.seqs?.add(seq);
    }
    if ("resumed" in step) {
      const { seqs } = socket;
      socket.cut();
      socket = await server.socket(server.sockets.length - 1);
      socket.seqs = seqs;
      socket.welcome({ status: 1 });
      told = 0;
    }
    for (; "unread" in step && unread > step.unread; unread--) await conn.recv();
    if ("due" in step) assert.equal(acks().length > told, step.due, JSON.stringify(step));
    if ("says" in step) {
      if (acks().length === told) await new Promise((resolve) => setTimeout(resolve, 60));
      if (acks().length > told) assert.equal(hex(acks().at(-1)), step.says); // it is silent where it has nothing to say
      told = acks().length;
    }
  }
});

each("sending", ["window", "steps"], async ({ window, steps }) => {
  let { conn, socket, server } = await begin({ welcome: { window } });
  let written = 0;
  for (const step of steps) {
    for (const key of Object.keys(step))
      assert.ok(["sends", "writes", "arrives", "news", "close", "resumed"].includes(key), key);
    for (const message of step.sends ?? []) await conn.send(content(message));
    await turns();
    if ("arrives" in step) socket.sayBytes(bytes(step.arrives));
    if ("close" in step) assert.equal(socket.closedWith?.[0], step.close);
    if ("resumed" in step) {
      socket.cut();
      socket = await server.socket(server.sockets.length - 1);
      socket.welcome({ status: 1, rx: step.resumed });
      written = 0;
    }
    if ("writes" in step) {
      const frames = socket.sent.filter((frame) => readFrame(frame)[0] === DATA);
      assert.deepEqual(frames.slice(written).map(hex), step.writes);
      written = frames.length;
    }
  }
}, ({ name }) => name === "after a break no more can be taken than has arrived" && "it is written again at once");
