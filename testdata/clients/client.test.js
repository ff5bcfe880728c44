// The published client, as its users call it, against real servers that the Go
// test beside cairn serve has started: see TestPublishedClient in cmd/cairn.
//
// CAIRN_WORLD is JSON:
//   url      a server over a directory, without a token
//   data     that directory
//   big      a file of it, large enough that creating and restoring take a while
//   newer    the identifier of a backup there that a newer server made
//   locked   a server that asks for token, over the same repository
//   token    that token
//   away     a server whose repository is not there
//   future   a server whose repository is of a newer format
"use strict";

const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { test, before } = require("node:test");
const { BackupApi, BackupsApi, Configuration, BackupStatusEnum, PlatformEnum } = require("@pieces.app/pieces-os-client");

const world = JSON.parse(process.env.CAIRN_WORLD);
const at = (basePath, extra = {}) => {
  const configuration = new Configuration({ basePath, ...extra });
  return { backup: new BackupApi(configuration), backups: new BackupsApi(configuration) };
};
const { backup, backups } = at(world.url);

// tree returns a hash of every file below dir.
function tree(dir) {
  const hash = crypto.createHash("sha256");
  const walk = (d) => {
    for (const e of fs.readdirSync(d, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const p = path.join(d, e.name);
      hash.update(path.relative(dir, p) + "\0" + (fs.statSync(p).mode & 0o7777) + "\0");
      if (e.isDirectory()) walk(p);
      else hash.update(fs.readFileSync(p));
    }
  };
  walk(dir);
  return hash.digest("hex");
}

const write = (name, content) => fs.writeFileSync(path.join(world.data, name), content);
const renew = () => write(world.big, crypto.randomBytes(fs.statSync(path.join(world.data, world.big)).size));

// fails holds that a call is refused with a code and a text.
async function fails(call, code, text) {
  await assert.rejects(call, (err) => {
    assert.equal(err.name, "ResponseError", String(err));
    assert.equal(err.response.status, code);
    assert.match(err.response.headers.get("content-type"), /^text\/plain/);
    return true;
  });
  if (text) {
    const err = await call().catch((e) => e);
    assert.match(await err.response.text(), text);
  }
}

// isBackup holds that every required field is there, with its type.
function isBackup(b) {
  assert.equal(b.id, `${b.version}_${b.timestamp}`);
  assert.match(b.version, /^\d+\.\d+\.\d+$/);
  assert.match(b.timestamp, /^\d{13}$/);
  assert.equal(typeof b.bytes, "number");
  assert.ok(b.created.value instanceof Date && !Number.isNaN(b.created.value.getTime()));
  assert.equal(b.created.value.getTime(), Number(b.timestamp));
  assert.equal(typeof b.deviceName, "string");
  assert.ok(Object.values(PlatformEnum).includes(b.platform));
}

// events yields what a streamed call says line by line, as its users can ask.
async function* events(response) {
  assert.match(response.headers.get("content-type"), /^application\/x-ndjson/);
  let rest = "";
  for await (const part of response.body) {
    rest += Buffer.from(part).toString();
    for (let end; (end = rest.indexOf("\n")) >= 0; rest = rest.slice(end + 1)) {
      yield JSON.parse(rest.slice(0, end));
    }
  }
  assert.equal(rest, "");
}
const lines = { headers: { Accept: "application/x-ndjson", "Content-Type": "application/json" } };

// follow reads a stream to its end and holds that it is one of a job.
async function follow(response, last) {
  const all = [];
  for await (const e of events(response)) all.push(e);
  assert.equal(all[0].status, "INITIALIZED");
  assert.equal(all.at(-1).status, last, JSON.stringify(all.at(-1)));
  assert.ok(all.some((e) => e.status === "IN-PROGRESS"));
  all.forEach((e, i) => {
    assert.equal(e.backup.id, all[0].backup.id);
    assert.ok(i === 0 || e.percentage >= all[i - 1].percentage, "progress fell");
    assert.ok(e.percentage < 100 || e.status === "COMPLETED", "100 before the end");
    assert.equal(["COMPLETED", "FAILED", "CANCELED"].includes(e.status), i === all.length - 1);
  });
  return all;
}

let first;
before(async () => {
  first = { backup: await backups.backupsCreateNewBackup(), tree: tree(world.data) };
});

test("create: bodies absent, null, empty, with what is not known", async () => {
  isBackup(first.backup);
  for (const seededBackup of [undefined, null, {}, { schema: null }, { later: { than: ["this"] } }]) {
    isBackup(await backups.backupsCreateNewBackup({ seededBackup }));
  }
  const seen = await backups.backupsSnapshot();
  seen.iterable.forEach((b) => seen.indices[b.id] !== undefined && assert.equal(seen.iterable[seen.indices[b.id]].id, b.id));
  assert.equal(new Set(seen.iterable.map((b) => b.id)).size, seen.iterable.length);
  assert.ok(seen.iterable.length >= 6);
});

test("get, and status of what is stored", async () => {
  const got = await backup.backupSpecificBackupSnapshot({ backup: first.backup.id });
  assert.deepEqual(got, first.backup);
  const st = await backup.backupSpecificCreationStatus({ backup: first.backup.id });
  assert.equal(st.value, BackupStatusEnum.Completed);
  assert.equal(st.percentage, 100);
  assert.deepEqual(st.backup, first.backup);
});

test("streamed create, as generated code reads it", async () => {
  const done = await backups.backupsCreateNewBackupStreamed({ seededBackup: {} });
  assert.equal(done.status, "COMPLETED");
  assert.equal(done.percentage, 100);
  isBackup(done.backup);
});

test("restore: bodies absent, null, empty, stale", async () => {
  const stale = { ...first.backup, id: "9.9.9_1", bytes: -1 };
  for (const backup2 of [undefined, null, {}, stale, { never: "heard of" }]) {
    write("extra", "not in the backup");
    write("small", "changed");
    // The generated code cannot serialise a body without a date; what is left is
    // what a user sends by hand.
    const call = { backup: first.backup.id };
    if (backup2 === stale) call.backup2 = stale;
    const override = backup2 && backup2 !== stale ? { body: JSON.stringify(backup2) } : undefined;
    const got = await backup.backupRestoreSpecificBackup(call, override);
    assert.deepEqual(got, first.backup);
    assert.equal(tree(world.data), first.tree);
  }
  const st = await backup.backupSpecificRestorationStatus({ backup: first.backup.id });
  assert.equal(st.value, "COMPLETED");
  assert.equal(st.percentage, 100);
});

test("streamed restore, as generated code reads it", async () => {
  write("extra", "again");
  const done = await backup.backupRestoreSpecificBackupStreamed({ backup: first.backup.id });
  assert.equal(done.status, "COMPLETED");
  assert.equal(done.backup.id, first.backup.id);
  assert.equal(tree(world.data), first.tree);
});

test("progress line by line, of a creation and a restoration", async () => {
  renew();
  const want = tree(world.data);
  const created = await backups.backupsCreateNewBackupStreamedRaw({}, lines);
  const all = await follow(created.raw, "COMPLETED");
  const id = all[0].backup.id;
  write("small", "changed once more");
  const restored = await backup.backupRestoreSpecificBackupStreamedRaw({ backup: id }, lines);
  await follow(restored.raw, "COMPLETED");
  assert.equal(tree(world.data), want);
});

test("progress by polling", async () => {
  renew();
  const before = new Set((await backups.backupsSnapshot()).iterable.map((b) => b.id));
  const stream = await backups.backupsCreateNewBackupStreamedRaw({}, lines);
  const it = events(stream.raw);
  const id = (await it.next()).value.backup.id;
  assert.ok(!before.has(id));
  let last = -1;
  for (;;) {
    const st = await backup.backupSpecificCreationStatus({ backup: id });
    assert.ok(st.percentage >= last, "progress fell");
    last = st.percentage;
    if (st.value === "COMPLETED") break;
    assert.ok(["INITIALIZED", "IN-PROGRESS"].includes(st.value), st.value);
    assert.ok(st.percentage < 100);
    await new Promise((r) => setTimeout(r, 5));
  }
  assert.equal(last, 100);
  await it.return();
});

test("cancel of a running creation", async () => {
  renew();
  const before = (await backups.backupsSnapshot()).iterable.map((b) => b.id);
  const stream = await backups.backupsCreateNewBackupStreamedRaw({}, lines);
  const it = events(stream.raw);
  const id = (await it.next()).value.backup.id;
  assert.equal(await backup.backupSpecificCreationCancel({ backup: id }), undefined);
  const st = await backup.backupSpecificCreationStatus({ backup: id });
  assert.equal(st.value, "CANCELED");
  let last;
  for await (const e of it) last = e;
  assert.equal(last.status, "CANCELED");
  await fails(() => backup.backupSpecificCreationCancel({ backup: id }), 500, /no creation .* in progress/);
  assert.deepEqual((await backups.backupsSnapshot()).iterable.map((b) => b.id), before);
});

test("cancel of a running restoration brings the original back", async () => {
  renew();
  write("small", "of now");
  const original = tree(world.data);
  const stream = await backup.backupRestoreSpecificBackupStreamedRaw({ backup: first.backup.id }, lines);
  const it = events(stream.raw);
  await it.next();
  await fails(() => backup.backupRestoreSpecificBackup({ backup: first.backup.id }), 500, /is being restored/);
  assert.equal(await backup.backupSpecificRestorationCancel({ backup: first.backup.id }), undefined);
  assert.equal(tree(world.data), original);
  const st = await backup.backupSpecificRestorationStatus({ backup: first.backup.id });
  assert.equal(st.value, "CANCELED");
  await it.return();
  await fails(() => backup.backupSpecificRestorationCancel({ backup: first.backup.id }), 500, /no restoration .* in progress/);
});

test("a call that is not streamed and is cancelled fails", async () => {
  renew();
  const known = new Set((await backups.backupsSnapshot()).iterable.map((b) => b.id));
  const call = backups.backupsCreateNewBackup().then(
    () => assert.fail("it was created"),
    async (err) => {
      assert.equal(err.response.status, 500);
      assert.match(await err.response.text(), /canceled/);
    },
  );
  // Its identifier is seen by who watches everything.
  const socket = new WebSocketLines(world.url.replace("http", "ws") + "/backups/streamed/progress");
  const id = await socket.firstBackup();
  assert.ok(!known.has(id));
  await backup.backupSpecificCreationCancel({ backup: id });
  await call;
  socket.close();
});

test("two creations at once", async () => {
  write("small", "for two");
  const both = await Promise.all([backups.backupsCreateNewBackup(), backups.backupsCreateNewBackup({ seededBackup: {} })]);
  assert.notEqual(both[0].id, both[1].id);
  const listed = (await backups.backupsSnapshot()).iterable.map((b) => b.id);
  both.forEach((b) => assert.ok(listed.includes(b.id)));
});

test("delete", async () => {
  const made = await backups.backupsCreateNewBackup();
  assert.equal(await backups.backupsDeleteSpecificBackup({ backup: made.id, backup2: made }), undefined);
  await fails(() => backup.backupSpecificBackupSnapshot({ backup: made.id }), 500);
  await fails(() => backups.backupsDeleteSpecificBackup({ backup: made.id }), 500);
  await fails(() => backup.backupSpecificCreationStatus({ backup: made.id }), 404);
});

test("assets", async () => {
  const stamp = { value: new Date("2025-06-03T03:33:00.123Z") };
  const asset = (id) => ({
    id, creator: "someone", created: stamp, updated: stamp, formats: { iterable: [] }, preview: { base: { id: "p" } },
    original: { id: "o" }, mechanism: "MANUAL",
  });
  const listed = (await backups.backupsSnapshot()).iterable.length;
  assert.equal(await backup.backup({ assets: { iterable: [asset("a1"), asset("../../etc/passwd")] } }), undefined);
  assert.equal(await backup.backupAsset({ asset: asset("a2") }), undefined);
  assert.equal(await backup.backupAsset(), undefined);
  assert.equal((await backups.backupsSnapshot()).iterable.length, listed, "assets are no backups");
  assert.equal(await backup.backup(), undefined);
  assert.equal((await backups.backupsSnapshot()).iterable.length, listed + 1, "without a body it is a backup");
});

test("every documented error", async () => {
  const unknown = { backup: "1.0.0_1" };
  for (const call of [
    () => backups.backupsDeleteSpecificBackup(unknown),
    () => backup.backupSpecificBackupSnapshot(unknown),
    () => backup.backupRestoreSpecificBackup(unknown),
    () => backup.backupRestoreSpecificBackupStreamed(unknown),
    () => backup.backupSpecificCreationCancel(unknown),
    () => backup.backupSpecificRestorationCancel(unknown),
    () => backup.backupSpecificBackupSnapshot({ backup: "../../etc" }),
  ]) {
    await fails(call, 500);
  }
  await fails(() => backup.backupSpecificCreationStatus(unknown), 404);
  await fails(() => backup.backupSpecificRestorationStatus(unknown), 404);
  await fails(() => backup.backupRestoreSpecificBackup({ backup: world.newer }), 505, /version 9/);
  await fails(() => backup.backupRestoreSpecificBackupStreamed({ backup: world.newer }), 505);

  for (const [url, code] of [[world.locked, 511], [world.away, 511], [world.future, 505]]) {
    const s = at(url);
    for (const call of [
      () => backups_(s).backupsSnapshot(),
      () => backups_(s).backupsCreateNewBackup(),
      () => backups_(s).backupsCreateNewBackupStreamed(),
      () => backups_(s).backupsDeleteSpecificBackup(unknown),
      () => s.backup.backup(),
      () => s.backup.backupAsset(),
      () => s.backup.backupSpecificBackupSnapshot(unknown),
      () => s.backup.backupRestoreSpecificBackup(unknown),
      () => s.backup.backupRestoreSpecificBackupStreamed(unknown),
    ]) {
      await fails(call, code);
    }
  }
  const named = at(world.locked, { apiKey: () => world.token });
  assert.ok((await named.backups.backupsSnapshot()).iterable.length > 0);
  const bearer = at(world.locked, { headers: { Authorization: `Bearer ${world.token}` } });
  assert.ok((await bearer.backups.backupsSnapshot()).iterable.length > 0);
  await fails(() => at(world.locked, { apiKey: () => "wrong" }).backups.backupsSnapshot(), 511);
});
const backups_ = (s) => s.backups;

test("the operations for WebSockets, as generated code calls them", async () => {
  const listed = (await backups.backupsSnapshot()).iterable.length;
  await fails(() => backups.backupsCreateNewBackupStreamedWebsocket(), 426);
  await fails(() => backup.backupRestoreSpecificBackupStreamedWebsocket({ backup: first.backup.id }), 426);
  await fails(() => backups.backupsStreamedProgress(), 426);
  assert.equal((await backups.backupsSnapshot()).iterable.length, listed, "nothing was started");
});

// A WebSocketLines is a client of RFC 6455 that reads text messages: Node 20 has
// none of its own.
class WebSocketLines {
  constructor(url) {
    const u = new URL(url);
    const key = crypto.randomBytes(16).toString("base64");
    this.opened = new Promise((resolve, reject) => {
      const req = require("node:http").request({
        host: u.hostname, port: u.port, path: u.pathname,
        headers: { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key },
      });
      req.on("upgrade", (res, socket, head) => resolve({ socket, head }));
      req.on("response", (res) => reject(new Error(`no upgrade: ${res.statusCode}`)));
      req.on("error", reject);
      req.end();
    });
  }
  async *messages() {
    const { socket, head } = await this.opened;
    let buffer = head;
    const next = socket[Symbol.asyncIterator]();
    for (;;) {
      let size = buffer.length < 2 ? -1 : buffer[1] & 127;
      let start = 2;
      if (size === 126) { start = 4; size = buffer.length < 4 ? -1 : buffer.readUInt16BE(2); }
      else if (size === 127) { start = 10; size = buffer.length < 10 ? -1 : Number(buffer.readBigUInt64BE(2)); }
      if (size < 0 || buffer.length < start + size) {
        const { value, done } = await next.next();
        if (done) return;
        buffer = Buffer.concat([buffer, value]);
        continue;
      }
      if ((buffer[0] & 15) === 1) yield JSON.parse(buffer.subarray(start, start + size).toString());
      buffer = buffer.subarray(start + size);
    }
  }
  async firstBackup() {
    for await (const m of this.messages()) {
      assert.ok(Array.isArray(m.backups) && Array.isArray(m.restorations));
      if (m.backups.length > 0) return m.backups[0].backup.id;
    }
    return assert.fail("the socket closed");
  }
  async close() { (await this.opened).socket.destroy(); }
}
