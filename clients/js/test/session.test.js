import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionClosed, DeliveryUnknown, EnvelopeRefused, SessionLost, connect } from "../penstock.js";
import { ACK, BYE, DATA, HELLO, PART, SID, fakeServer, until } from "./fake.js";

/** A connection, its socket and its server. */
async function begin(options = {}, welcome = {}) {
  const server = fakeServer();
  const connecting = connect("ws://here/", { WebSocket: server.WebSocket, reconnectDelays: [0], ...options });
  const socket = await server.socket();
  socket.welcome(welcome);
  return { conn: await connecting, socket, server };
}

const turns = async (number = 3) => {
  while (number--) await new Promise(setImmediate);
};
const outcome = (promise) => promise.then((value) => value ?? "done", (error) => error);

// Opening

test("subprotocols are offered inside the envelope, and then as they are", async () => {
  const { conn, socket } = await begin({ protocols: ["a", "b"] });
  assert.deepEqual(socket.offered, ["penstock.v1+a", "penstock.v1+b", "a", "b"]);
  assert.equal(conn.protocol, "a");
  assert.equal(conn.reliable, true);
  assert.deepEqual(socket.frames(HELLO), [[HELLO, new Uint8Array(), 0, 1, 2 ** 20, 2 ** 20, 0, 2 ** 24]]);
});

test("a server that selects none of what is offered is spoken to in plain frames", async () => {
  const server = fakeServer((offered) => (offered[0]?.startsWith("penstock") ? undefined : ""));
  const conn = await connect("ws://here/", { WebSocket: server.WebSocket });
  assert.deepEqual(server.sockets.map((socket) => socket.offered), [["penstock.v1"], []]);
  assert.equal(conn.reliable, false);
  await conn.send("hello");
  assert.deepEqual(server.sockets[1].sent, ["hello"]);
  server.sockets[1].sayBytes("answer");
  assert.equal(await conn.recv(), "answer");
  await assert.rejects(conn.delivered(), EnvelopeRefused);
  await conn.close(4001, "enough");
  assert.deepEqual(server.sockets[1].closedWith, [4001, "enough"]);
});

test("reliable: true refuses such a server", async () => {
  const server = fakeServer((offered) => (offered.includes("chat") ? "chat" : undefined));
  await assert.rejects(connect("ws://here/", { ...server, protocols: "chat", reliable: true }), EnvelopeRefused);
});

test("a server that selects what it does not know, and answers anything, is spoken to in plain frames", async () => {
  const server = fakeServer((offered) => offered[0] ?? "");
  const connecting = connect("ws://here/", { WebSocket: server.WebSocket });
  (await server.socket()).sayBytes("welcome to our chat");
  assert.equal((await connecting).reliable, false);
});

test("a server that cannot be reached is an error", async () => {
  const server = fakeServer(() => undefined);
  await assert.rejects(connect("ws://here/", { WebSocket: server.WebSocket }), ConnectionClosed);
});

// Sending

test("the messages of one turn leave in one frame", async () => {
  const { conn, socket } = await begin();
  for (const message of ["one", new Uint8Array([2]), "drei ü \u{1F600}"]) await conn.send(message);
  await turns();
  assert.deepEqual(socket.frames(DATA), [[DATA, 1, ["one", new Uint8Array([2]), "drei ü \u{1F600}"]]]);
});

test("what the peer cannot take, or WebSocket does not know, is refused", async () => {
  const { conn } = await begin({}, { most: 10 });
  await conn.send("a".repeat(10));
  await assert.rejects(conn.send("a".repeat(11)), RangeError);
  await assert.rejects(conn.send("ü".repeat(6)), RangeError);
  await assert.rejects(conn.send(5), TypeError);
  await assert.rejects(conn.close(1001), RangeError);
});

test("a large message goes in parts", async () => {
  const { conn, socket } = await begin();
  const message = "ü".repeat(50_000);
  await conn.send("before");
  await conn.send(message);
  await turns();
  const parts = socket.frames(PART);
  assert.deepEqual(parts.map(([, seq, flags]) => [seq, flags]), [[2, 2], [3, 3]]);
  assert.equal(Buffer.concat(parts.map((part) => part[3])).toString(), message);
});

test("the window is exceeded by one frame at most, and acknowledgements open it", async () => {
  const { conn, socket } = await begin({}, { window: 100_000 });
  for (let i = 0; i < 10; i++) await conn.send(new Uint8Array(60_000));
  await turns();
  assert.equal(socket.frames(DATA).length, 2);
  socket.say(ACK, 1, 0);
  assert.equal(socket.frames(DATA).length, 3);
});

test("send waits while too much is unacknowledged", async () => {
  const { conn, socket } = await begin();
  let accepted = 0;
  const sending = Array.from({ length: 80 }, () => conn.send(new Uint8Array(60_000)).then(() => accepted++));
  await turns();
  assert.equal(accepted, 70);
  for (let taken = 16; accepted < 80; taken += 2) {
    socket.say(ACK, taken, 0);
    await turns();
  }
  await Promise.all(sending);
});

test("delivered asks for an acknowledgement, and resolves with it", async () => {
  const { conn, socket } = await begin();
  await conn.send("one");
  let isDelivered = false;
  const delivered = conn.delivered().then(() => (isDelivered = true));
  await turns();
  assert.deepEqual(socket.frames(ACK).at(-1), [ACK, 0, 1]);
  assert.equal(isDelivered, false);
  socket.say(ACK, 1, 0);
  await delivered;
  await conn.delivered();
});

// Receiving

test("messages come out in order, large ones whole", async () => {
  const { conn, socket } = await begin();
  socket.say(DATA, 1, ["a", new Uint8Array([1, 2])]);
  socket.say(PART, 2, 2, new Uint8Array([0xc3]));
  socket.say(PART, 3, 3, new Uint8Array([0xbc]));
  assert.deepEqual([await conn.recv(), await conn.recv(), await conn.recv()], ["a", new Uint8Array([1, 2]), "ü"]);
});

test("a frame is acknowledged after its last message was taken, within 50 ms", async () => {
  const { conn, socket } = await begin();
  socket.say(DATA, 1, ["a", "b"]);
  await conn.recv();
  await new Promise((resolve) => setTimeout(resolve, 70));
  assert.deepEqual(socket.frames(ACK), [[ACK, 0, 0]]); // which follows WELCOME
  const start = performance.now();
  await conn.recv();
  await until(() => socket.frames(ACK).length === 2);
  assert.ok(performance.now() - start > 40);
  assert.deepEqual(socket.frames(ACK)[1], [ACK, 1, 0]);
});

test("who waits for a message takes that one, and not the frame", async () => {
  const { conn, socket } = await begin();
  const waiting = conn.recv();
  socket.say(ACK, 0, 1);
  socket.say(DATA, 1, ["a", "b"]);
  assert.equal(await waiting, "a");
  assert.equal(socket.frames(ACK).length, 1);
  await conn.recv();
  assert.deepEqual(socket.frames(ACK)[1], [ACK, 1, 0]);
});

for (const [name, say, taken] of [
  ["32 frames", (socket) => Array.from({ length: 32 }, (_, i) => socket.say(DATA, i + 1, ["x"])), 32],
  ["a quarter of the window", (socket) => socket.say(DATA, 1, [new Uint8Array(2 ** 18)]), 1],
  ["a duplicate", (socket) => [socket.say(DATA, 1, ["x"]), socket.say(DATA, 1, ["x"])], 1],
  ["what the peer wants", (socket) => [socket.say(ACK, 0, 1), socket.say(DATA, 1, ["x"])], 1],
])
  test(`${name} is acknowledged at once`, async () => {
    const { conn, socket } = await begin();
    const reading = (async () => {
      for await (const message of conn) void message;
    })();
    say(socket);
    await turns();
    assert.deepEqual(socket.frames(ACK).at(-1), [ACK, taken, 0]);
    socket.say(BYE, 1000, "", 0);
    socket.cut();
    await reading;
  });

// Breaks

test("after a break the same frames are sent again, and the rest once more", async () => {
  const { conn, socket, server } = await begin();
  const events = [];
  for (const type of ["detach", "resume", "close"]) conn.addEventListener(type, () => events.push(type));
  for (const message of ["one", "two", "three"]) {
    await conn.send(message);
    await turns();
  }
  socket.say(DATA, 1, ["hello"]);
  socket.say(ACK, 1, 0);
  socket.cut();
  await conn.send("four");
  const second = await server.socket(1);
  assert.deepEqual(second.frames(HELLO)[0].slice(0, 4), [HELLO, SID, 1, 2]);
  second.welcome({ status: 1, rx: 2 });
  await turns();
  assert.deepEqual(second.frames().slice(1), [[ACK, 0, 0], [DATA, 3, ["three"]], [DATA, 4, ["four"]]]);
  assert.deepEqual(second.sent[2], socket.sent.at(-1));
  assert.equal(await conn.recv(), "hello");
  assert.deepEqual(events, ["detach", "resume"]);
});

test("a second break, and an attempt that fails, change nothing", async () => {
  const { conn, socket, server } = await begin();
  await conn.send("one");
  const delivered = conn.delivered();
  socket.cut();
  (await server.socket(1)).cut();
  const third = await server.socket(2);
  third.welcome({ status: 1 });
  third.cut(1001);
  const fourth = await server.socket(3);
  fourth.welcome({ status: 1, rx: 1 });
  assert.deepEqual(fourth.frames(ACK), [[ACK, 0, 1]]);
  fourth.say(ACK, 1, 0);
  await delivered;
});

for (const [name, welcome] of [
  ["is unknown", { status: 2, sid: new Uint8Array(32) }],
  ["has a gap", { status: 3, sid: new Uint8Array(32) }],
  ["goes on where it cannot", { status: 1, first: 5 }],
  ["goes on as another", { status: 1, sid: new Uint8Array(32) }],
])
  test(`a session that ${name} is lost, and tells what may not have arrived`, async () => {
    const { conn, socket, server } = await begin();
    socket.say(DATA, 1, ["unread"]);
    for (const message of ["a", new Uint8Array(70_000)]) await conn.send(message);
    await turns();
    socket.cut();
    const delivered = outcome(conn.delivered());
    const second = await server.socket(1);
    second.welcome(welcome);
    const error = await delivered;
    assert.ok(error instanceof SessionLost);
    assert.deepEqual(error.unacknowledged, ["a", new Uint8Array(70_000)]);
    assert.equal(await conn.recv(), "unread");
    assert.equal(await outcome(conn.recv()), error);
    assert.equal(await outcome(conn.send("b")), error);
    assert.deepEqual(second.frames(BYE), [[BYE, 1000, "", 0]]);
  });

test("a session that ended in order meanwhile ends in order", async () => {
  const { conn, socket, server } = await begin();
  socket.cut();
  (await server.socket(1)).welcome({ status: 4, sid: new Uint8Array(32) });
  for await (const message of conn) assert.fail(message);
});

for (const code of [1008, 4909, 4900, 4400])
  test(`a close with ${code} is not resumed`, async () => {
    const { conn, socket, server } = await begin();
    socket.cut(code, "why");
    const error = await outcome(conn.recv());
    assert.ok(error instanceof SessionLost);
    assert.deepEqual([error.code, error.reason], [code, "why"]);
    assert.equal(server.sockets.length, 1);
  });

test("a session is lost when the server does not come back within its time", async () => {
  const { conn, socket, server } = await begin({ reconnectDelays: [20] }, { ttl: 100 });
  socket.cut();
  const start = performance.now();
  await until(() => server.sockets[1]);
  server.sockets[1].cut(); // all later ones are silent
  const error = await outcome(conn.recv());
  assert.match(error.message, /could not be reached within 0.1 s/);
  assert.ok(performance.now() - start < 500);
});

// The end

test("close says BYE behind the last frame, and closes once that was taken", async () => {
  const { conn, socket } = await begin();
  conn.send("last");
  let isClosed = false;
  const closing = conn.close(4001, "enough").then(() => (isClosed = true));
  await turns();
  assert.deepEqual(socket.frames().slice(2), [[DATA, 1, ["last"]], [ACK, 0, 0], [BYE, 4001, "enough", 0]]);
  assert.deepEqual([socket.closedWith, isClosed], [null, false]);
  socket.say(ACK, 1, 0);
  await closing;
  assert.deepEqual(socket.closedWith, [4001, "enough"]);
  assert.equal((await conn.closed).code, 4001);
  await assert.rejects(conn.send("more"), ConnectionClosed);
});

test("a break after BYE may be resumed", async () => {
  const { conn, socket, server } = await begin();
  await conn.send("last");
  const closing = conn.close();
  socket.cut();
  const second = await server.socket(1);
  second.welcome({ status: 1 });
  assert.deepEqual(second.frames().slice(1).map(([type]) => type), [ACK, DATA, ACK, BYE]);
  second.say(ACK, 1, 0);
  await closing;
});

test("when the peer says BYE, what has arrived is read before it is answered", async () => {
  const { conn, socket } = await begin();
  for (const message of ["taken", "perhaps"]) {
    await conn.send(message);
    await turns();
  }
  const delivered = outcome(conn.delivered());
  socket.say(DATA, 1, ["a", "b"]);
  socket.say(BYE, 1001, "going", 1);
  const error = await delivered;
  assert.ok(error instanceof DeliveryUnknown);
  assert.deepEqual(error.unacknowledged, ["perhaps"]);
  await assert.rejects(conn.send("more"), ConnectionClosed);
  assert.equal(socket.frames(BYE).length, 0);
  const read = [];
  for await (const message of conn) {
    read.push(message);
    if (read.length === 2) setImmediate(() => socket.cut(1001));
  }
  assert.deepEqual(read, ["a", "b"]);
  assert.deepEqual(socket.frames().slice(-2), [[ACK, 1, 0], [BYE, 1001, "going", 1]]);
  assert.equal((await conn.closed).reason, "going");
});

test("another code than 1000 and 1001 ends iteration with an error", async () => {
  const { conn, socket } = await begin();
  socket.say(BYE, 1011, "oops", 0);
  socket.cut(1011);
  const error = await outcome(conn.recv());
  assert.deepEqual([error.constructor, error.code, error.reason], [ConnectionClosed, 1011, "oops"]);
});

// Bad input

const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
for (const [name, code, frame] of [
  ["a text frame", 4900, "hello"],
  ["nothing", 4900, ""],
  ["no msgpack", 4900, "c1"],
  ["a map", 4900, "81a16101"],
  ["a truncated frame", 4900, "930001"],
  ["truncated text", 4900, "93000191a561"],
  ["trailing bytes", 4900, "9300019101a16100"],
  ["an empty DATA", 4900, "93000190"],
  ["a number among messages", 4900, "9300019101"],
  ["an array among messages", 4900, "9300019190"],
  ["nil for a number", 4900, "9300c091a161"],
  ["a number above 2^53-1", 4900, "9300cf002000000000000091a161"],
  ["a negative one", 4900, "9300ff91a161"],
  ["type 7", 4900, "920701"],
  ["a second WELCOME", 4900, "9b05c4000000000000000000a0"],
  ["an ACK of what was not sent", 4900, "93030100"],
  ["invalid UTF-8", 4907, "93000191a1ff"],
  ["a gap", 4910, "93000391a161"],
  ["too many messages", 4913, `930001dc1001${"a0".repeat(4097)}`],
  ["compressed messages", 4900, "9501010101c400"],
  ["compressed messages, too many", 4913, "950101cd100101c400"],
  ["DATA in the middle of a message", 4900, ["94020100c40161", "93000291a161"]],
])
  test(`${name} closes with ${code}`, async () => {
    const { conn, socket } = await begin();
    for (const one of [frame].flat()) socket.sayBytes(one === "hello" ? one : bytes(one));
    assert.equal(socket.closedWith[0], code);
    assert.equal((await conn.closed).constructor, SessionLost);
  });

test("a window that is exceeded by more than a frame closes with 4913", async () => {
  const { socket } = await begin();
  for (let seq = 1; seq <= 3; seq++) {
    assert.equal(socket.closedWith, null);
    socket.say(DATA, seq, [new Uint8Array(600_000)]);
  }
  assert.equal(socket.closedWith[0], 4913);
});

test("a message above the limit closes with 4913", async () => {
  const { conn, socket } = await begin();
  const reading = outcome(conn.recv());
  for (let seq = 1; seq <= 17; seq++) {
    assert.equal(socket.closedWith, null);
    socket.say(PART, seq, 0, new Uint8Array(1_000_000));
  }
  assert.equal(socket.closedWith[0], 4913);
  assert.ok((await reading) instanceof SessionLost);
});

test("what a later version may send is ignored", async () => {
  const { conn, socket } = await begin();
  for (const frame of ["921001", "9110", "940300009101", "94000191a161a162"]) socket.sayBytes(bytes(frame));
  assert.equal(await conn.recv(), "a");
  assert.equal(socket.closedWith, null);
});
