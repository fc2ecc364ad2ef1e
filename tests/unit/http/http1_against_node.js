/*
 * Differential test: whatever our HTTP/1 parser accepts, Node's has to accept and read in the same way. Requests are
 * made from a seed and mutated; http1_dump says what ours reads. Each accepted one is then put before a Node server,
 * once as it came and once as we would write it to the next hop, with another request right behind it: method, target,
 * fields, body, trailers and the place where the next request starts must agree. What ours refuses is not looked at.
 *
 *     node http1_against_node.js <path of http1_dump> [seed] [count]
 */
'use strict';

const http = require('http');
const { spawnSync } = require('child_process');
const { Duplex } = require('stream');

const [dump, seed = '1', count = '6000'] = process.argv.slice(2);

/* ---- requests from a seed ---- */

let state = Number(seed) >>> 0;
function random(n) { /* mulberry32 */
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % n;
}
const pick = (list) => list[random(list.length)];
const chance = (percent) => random(100) < percent;

const METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD', 'TRACE', 'PROPFIND', 'M-SEARCH', 'CONNECT'];
const TARGETS = ['/', '/a/b?c=d&e=f', '/%00%2e%2e/', '//x', '/a//../b', '*', 'http://a.example/x?y', 'https://a.example',
  'http://b.example/', '/"<>\\^`{|}~', '/a;b=c,d', '/?#', '?x', 'a.example:80', '/[]', '/\'()*+!$&@:'];
const HOSTS = ['a.example', 'A.Example', '[::1]:80', '127.0.0.1', 'a.example:8080', 'a_b.example.', '\ta', 'a\t', 'a \t ', '', 'a b', 'a@b'];
const FIELDS = ['Accept: */*', 'X:', 'X: \t padded \t', 'x-high: \xe9\xff', 'X: a\tb', 'Cookie: a=b; c=d', 'cookie: e=f',
  'Connection: keep-alive', 'Connection: close', 'Connection: upgrade', 'Connection: x, Upgrade', 'Connection: TE',
  'Upgrade: websocket', 'Upgrade: h2c', 'Upgrade: a/1, b', 'TE: trailers', 'Expect: 100-continue', 'Expect: x',
  'Keep-Alive: timeout=5', 'Proxy-Connection: keep-alive', 'Trailer: x', 'Range: bytes=0-1', '!#$%&\'*+-.^_`|~: token',
  'Content-Type: text/plain', 'Host: b.example', 'X-Forwarded-For: 1.2.3.4', 'Accept:a', '0: 1'];
const LENGTHS = (n) => [`${n}`, `0${n}`, `+${n}`, `-${n}`, `${n}, ${n}`, `${n} `, `\t${n}`, `${n}\t`, '', '18446744073709551617', `0x${n}`];
const CODINGS = ['chunked', 'Chunked', ' chunked', 'chunked ', '\tchunked', 'chunked\t', 'identity', 'gzip, chunked', 'chunked, chunked', '"chunked"',
  'chunked;a', 'xchunked', 'chunked,', ', chunked', ''];
const SIZES = (n) => {
  const hex = n.toString(16);
  return [hex, hex.toUpperCase(), `00${hex}`, `${hex};a`, `${hex};a=b;c="d e\\""`, `${hex};a="\t"`, `${hex} `, ` ${hex}`,
    `${hex};`, `${hex}; a`, `+${hex}`, `0x${hex}`, `${hex}\t`, `1000000000000000${hex}`, `${hex};a=b c`, `${hex};\xe9`];
};

const content = () => Array.from({ length: random(30) }, () => String.fromCharCode(random(256))).join('');
/* The first alternative nine times of ten: most requests should be right but for one thing. */
const mostly = (list) => (chance(90) ? list[0] : pick(list));

function chunked() {
  let text = '';
  for (let n = random(4); n > 0; n--) {
    const data = content() + 'x';
    text += `${chance(75) ? pick(SIZES(data.length).slice(0, 6)) : pick(SIZES(data.length))}\r\n${data}\r\n`;
  }
  text += `${mostly(['0', '000', '0;x', '0 ', '00;x="y"'])}\r\n`;
  for (let n = chance(30) ? random(3) : 0; n > 0; n--) text += `${pick(FIELDS)}\r\n`;
  return text + '\r\n';
}

function request() {
  const target = chance(70) ? pick(TARGETS.slice(0, 5)) : pick(TARGETS);
  let text = chance(5) ? '\r\n' : '';
  text += `${pick(METHODS)} ${target} HTTP/${mostly(['1.1', '1.0', '2.0', '0.9'])}\r\n`;
  const lines = [`${pick(['Host', 'host', 'HOST'])}: ${chance(80) ? 'a.example' : pick(HOSTS)}`];
  for (let n = random(6); n > 0; n--) lines.push(pick(FIELDS));
  let body = '';
  const kind = random(4);
  if (kind === 1 || chance(3)) {
    body = content();
    lines.push(`Content-Length: ${mostly(LENGTHS(body.length))}`);
  }
  if (kind === 2 || chance(3)) {
    body = chunked();
    lines.push(`Transfer-Encoding: ${mostly(CODINGS)}`);
  }
  lines.sort(() => random(3) - 1);
  return `${text}${lines.join('\r\n')}\r\n\r\n${body}`;
}

const BYTES = ['\r', '\n', '\r\n', '\0', ' ', '\t', ':', ',', ';', '"', '\x7f', '\x80', '\xff', '\x0b', '\x0c', '#', '@', '0',
  'a', '/', '\x1f', '\\', '=', '\r\n ', ' \r\n'];

function mutate(text) {
  const at = random(text.length + 1);
  switch (random(5)) {
  case 0: return text.slice(0, at) + pick(BYTES) + text.slice(at);
  case 1: return text.slice(0, at) + text.slice(at + 1 + random(3));
  case 2: return text.slice(0, at) + pick(BYTES) + text.slice(at + 1);
  case 3: return text.slice(0, at) + text.slice(Math.max(0, at - random(40)), at) + text.slice(at);
  default: {
    const lines = text.split('\r\n');
    const [a, b] = [random(lines.length), random(lines.length)];
    [lines[a], lines[b]] = [lines[b], lines[a]];
    return lines.join('\r\n');
  }
  }
}

function cases() {
  const list = [];
  for (let i = 0; i < Number(count); i++) {
    let text = request();
    for (let n = chance(50) ? 1 + random(2) : 0; n > 0; n--) text = mutate(text);
    list.push(Buffer.from(text, 'latin1'));
  }
  return list;
}

/* ---- our reading ---- */

function ours(list) {
  const records = list.flatMap((data) => {
    const prefix = Buffer.alloc(4);
    prefix.writeUInt32LE(data.length);
    return [prefix, data];
  });
  const run = spawnSync(dump, { input: Buffer.concat(records), maxBuffer: 1 << 30 });
  if (run.error || run.status !== 0) throw new Error(`${dump}: ${run.error || run.stderr}`);
  const text = (hex) => Buffer.from(hex, 'hex').toString('latin1');
  return run.stdout.toString().trim().split('\n').map((line) => {
    const m = JSON.parse(line);
    if (m.error) return m;
    for (const key of ['method', 'target', 'authority', 'body', 'rewritten']) m[key] = text(m[key]);
    for (const key of ['fields', 'trailers']) m[key] = m[key].map(([name, value]) => [text(name), text(value)]);
    return m;
  });
}

/* ---- Node's reading ---- */

const pairs = (raw) => raw.flatMap((name, i) => (i % 2 ? [] : [[name, raw[i + 1]]]));

/* Everything a Node server sees in these bytes, in order; nothing of it goes near a socket. */
function nodes(bytes) {
  return new Promise((resolve) => {
    const seen = { requests: [], error: null, after: null };
    const server = http.createServer({ maxHeaderSize: 1 << 17, insecureHTTPParser: false, keepAlive: false });
    const socket = new Duplex({ read() {}, write(chunk, encoding, done) { done(); } });
    const note = (req, event) => {
      const entry = { event, method: req.method, target: req.url, fields: pairs(req.rawHeaders), body: '', whole: false };
      seen.requests.push(entry);
      return entry;
    };
    const serve = (event) => (req, res) => {
      const entry = note(req, event);
      req.on('data', (data) => { entry.body += data.toString('latin1'); });
      req.on('end', () => {
        entry.whole = true;
        entry.trailers = pairs(req.rawTrailers);
        res.end();
      });
      req.on('error', () => {});
    };
    server.on('request', serve('request'));
    server.on('checkContinue', serve('continue'));
    server.on('checkExpectation', serve('expectation'));
    server.on('upgrade', (req, _socket, head) => {
      Object.assign(note(req, 'upgrade'), { whole: true, trailers: [] });
      seen.after = head.toString('latin1');
      socket.destroy();
    });
    server.on('connect', (req) => {
      note(req, 'connect');
      socket.destroy();
    });
    server.on('clientError', (error) => {
      seen.error = error.code || String(error);
      socket.destroy();
    });
    socket.on('close', () => resolve(seen));
    socket.on('error', () => {});
    server.emit('connection', socket);
    socket.push(bytes);
    socket.push(null);
  });
}

/* ---- the comparison ---- */

const NEXT = 'GET /next HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n';

/* Framing and hop fields are ours to rewrite; Host may be spelt in another case. */
const HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'upgrade',
  'transfer-encoding', 'content-length', 'http2-settings']);
const endToEnd = (fields) => fields.filter(([name]) => !HOP.has(name.toLowerCase()));
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function originForm(target, method) {
  const absolute = /^https?:\/\/[^/?]*(.*)$/i.exec(target);
  if (!absolute) return target;
  return absolute[1] || (method === 'OPTIONS' ? '*' : '/');
}

/* What is different, or null. */
function difference(mine, seen, rewritten) {
  const first = seen.requests[0];
  if (!first) return `node refuses: ${seen.error}`;
  if (first.method !== mine.method) return `method ${first.method}`;
  if ((rewritten ? first.target : originForm(first.target, first.method)) !== mine.target) return `target ${first.target}`;
  /* Ours puts the host of a URL in the place of Host's (RFC 9112, 3.2.2). */
  const asked = first.target.startsWith('http') ? (list) => list.filter(([name]) => name.toLowerCase() !== 'host') : (list) => list;
  const fields = rewritten ? [endToEnd(mine.fields), endToEnd(first.fields)] : [asked(mine.fields), asked(first.fields)];
  if (!same(fields[0], fields[1])) return `fields ${JSON.stringify(fields[1])}`;

  /* We let these wishes for another protocol be, and take them out before the next hop; Node tells its owner. */
  const wish = first.event === 'upgrade' && !mine.upgrade;
  if (wish) return rewritten ? 'an upgrade where ours has none' : null;
  if (mine.upgrade) {
    if (first.event !== 'upgrade') return 'no upgrade where ours has one';
    /* Node tells its owner of an upgrade before it reads the body, which is then in front of the upgraded bytes. */
    return seen.after === mine.body + NEXT ? null : 'upgraded bytes start elsewhere';
  }
  /* Ours drops these from trailers; Node heeds some of them even there. */
  const steers = ([name]) => HOP.has(name.toLowerCase()) || ['host', 'te'].includes(name.toLowerCase());
  if (!first.whole && !rewritten && seen.error === 'HPE_CLOSED_CONNECTION') return null;
  if (!first.whole) return `node's body is not complete: ${seen.error}`;
  if (first.body !== mine.body) return `body ${JSON.stringify(first.body)}`;
  if (!same(rewritten ? endToEnd(mine.trailers) : mine.trailers, first.trailers.filter((field) => !steers(field)))) return `trailers ${first.trailers}`;
  if (!mine.keep_alive && !rewritten) return null;
  const second = seen.requests[1];
  if (!second || second.target !== '/next' || seen.requests.length !== 2)
    return `the next request starts elsewhere (${seen.error}, ${JSON.stringify(seen.requests.slice(1))})`;
  return null;
}

async function main() {
  const list = cases();
  const readings = ours(list);
  if (readings.length !== list.length) throw new Error(`${readings.length} readings of ${list.length} requests`);
  const counts = { refused: 0, compared: 0, unknown: 0, bodies: 0, upgrades: 0, different: 0 };
  for (let i = 0; i < list.length; i++) {
    const mine = readings[i];
    if (mine.error) {
      counts.refused++;
      continue;
    }
    if (!http.METHODS.includes(mine.method)) { /* Node knows a list of methods, HTTP knows tokens */
      counts.unknown++;
      continue;
    }
    counts.compared++;
    counts.bodies += mine.body.length > 0;
    counts.upgrades += mine.upgrade;
    /* Behind the last message of a connection there is no next request. */
    const next = Buffer.from(mine.keep_alive || mine.upgrade ? NEXT : '');
    const asItCame = Buffer.concat([list[i].subarray(0, mine.used), next]);
    const asWritten = Buffer.from(mine.rewritten + NEXT, 'latin1');
    for (const [how, bytes] of [['as it came', asItCame], ['as written', asWritten]]) {
      const found = difference(mine, await nodes(bytes), how === 'as written');
      if (!found) continue;
      counts.different++;
      console.log(`request ${i}, ${how}: ${found}\n  ${JSON.stringify(bytes.toString('latin1'))}`);
    }
  }
  console.log(`node ${process.version}, seed ${seed}: ${JSON.stringify(counts)}`);
  /* A comparison of next to nothing would prove nothing. */
  const enough = counts.compared > list.length / 5 && counts.bodies > list.length / 50 && counts.upgrades > 0;
  if (!enough) console.log('too few requests were compared');
  process.exit(counts.different || !enough ? 1 : 0);
}

main().catch((error) => {
  console.log(error.stack);
  process.exit(1);
});
