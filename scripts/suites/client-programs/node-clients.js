// npm's socks through the proxy, with each of its three commands.
//
// node-clients.js CASE socks5|socks4 PROXY_PORT TARGET_PORT [USER PASSWORD] passes octets through the proxy, says
// `same` when they arrived unchanged, and fails otherwise. NODE_PATH says where the package is.

'use strict';
const crypto = require('crypto');
const dgram = require('dgram');
const net = require('net');
const { SocksClient } = require('socks');

const [name, protocol, proxyPort, targetPort, userId, password] = process.argv.slice(2);
const proxy = { host: '127.0.0.1', port: Number(proxyPort), type: Number(protocol.at(-1)), userId, password };
const sent = crypto.randomBytes(300000);
const port = Number(targetPort);

setTimeout(() => fail(new Error('nothing came in time')), 20000).unref();

function fail(error) {
  console.error(String(error));
  process.exit(1);
}

function succeed() {
  console.log('same');
  process.exit(0);
}

// No resume() here: the package hands on what came early and resumes by itself, a moment later.
function whole(stream) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('end', () => resolve(Buffer.concat(chunks)));
    stream.on('error', reject);
  });
}

function expectSame(came, expected) {
  if (!came.equals(expected)) throw new Error(`${came.length} octets came that differ from what was sent`);
}

async function connect(host) {
  const { socket } = await SocksClient.createConnection({
    proxy, command: 'connect', destination: { host, port }, timeout: 15000,
  });
  const came = whole(socket);
  socket.end(sent);
  expectSame(await came, sent);
}

// The peer is this process itself: it connects to the address that the first reply names, sends
// octets and takes others, so that both directions are seen.
async function bind(expected) {
  const client = new SocksClient({
    proxy, command: 'bind', destination: { host: expected, port }, timeout: 15000,
  });
  const back = crypto.randomBytes(300000);
  let peer;
  let peerCame;
  client.on('bound', ({ remoteHost }) => {
    peer = net.connect({ ...remoteHost, allowHalfOpen: true }, () => peer.end(sent));
    peer.on('error', fail);
    peerCame = whole(peer);
  });
  const established = new Promise((resolve, reject) => {
    client.on('established', resolve);
    client.on('error', reject);
  });
  client.connect();
  const { socket, remoteHost } = await established;
  if (remoteHost.port !== peer.localPort) {
    throw new Error(`the second reply names port ${remoteHost.port}, the peer has ${peer.localPort}`);
  }
  const came = whole(socket);
  socket.end(back);
  expectSame(await came, sent);
  expectSame(await peerCame, back);
}

async function associate(host) {
  const udp = dgram.createSocket('udp4');
  await new Promise((resolve) => udp.bind(0, '127.0.0.1', resolve));
  const client = new SocksClient({
    proxy, command: 'associate', destination: { host: '0.0.0.0', port: 0 }, timeout: 15000,
  });
  const established = new Promise((resolve, reject) => {
    client.on('established', resolve);
    client.on('error', reject);
  });
  client.connect();
  const relay = (await established).remoteHost;
  for (const length of [1, 512, 1400, 9000]) {
    const data = crypto.randomBytes(length);
    const frame = SocksClient.createUDPFrame({ remoteHost: { host, port }, data });
    const answered = new Promise((resolve) => udp.once('message', resolve));
    udp.send(frame, relay.port, relay.host);
    const parsed = SocksClient.parseUDPFrame(await answered);
    expectSame(parsed.data, data);
    if (parsed.remoteHost.port !== port) throw new Error(`an answer from port ${parsed.remoteHost.port}`);
  }
}

const cases = {
  'connect-address': () => connect('127.0.0.1'),
  'connect-name': () => connect('localhost'),
  'bind-expected-peer': () => bind('127.0.0.1'),
  'bind-any-peer': () => bind('0.0.0.0'),
  'associate-address': () => associate('127.0.0.1'),
  'associate-name': () => associate('localhost'),
};

cases[name]().then(succeed, fail);
