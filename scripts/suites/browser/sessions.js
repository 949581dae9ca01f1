// A server, and what goes on at it: clients, targets and a stranger, each with an address of its
// own.
'use strict';
const { spawn } = require('node:child_process');
const dgram = require('node:dgram');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const SECRET = 'open sesame';
const HOSTILE = '<img/src=x/onerror=alert(1)>';
const PROXY = 1080;

// Starts tabi, and waits until it says where its status page is.
async function startTabi(options = []) {
    const users = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'tabi-status-')), 'users');
    const names = ['alice', 'bob', 'carol', HOSTILE];
    fs.writeFileSync(users, names.map((name) => `${name}:${SECRET}\n`).join(''), { mode: 0o600 });
    const rules = `${users}.rules`;
    fs.writeFileSync(rules, 'deny to 203.0.113.19\n');
    const tabi = spawn(process.env.TABI, [
        String(PROXY), '--users', users, '--rules', rules, '--status', '127.0.0.1:0',
        '--max-connections', '8000', ...options,
    ], { stdio: ['ignore', 'ignore', 'pipe'] });
    process.on('exit', () => tabi.kill('SIGKILL'));
    tabi.gone = new Promise((resolve) => tabi.on('exit', resolve));
    let log = '';
    tabi.url = await new Promise((resolve, reject) => {
        const limit = setTimeout(() => reject(new Error(`no status page:\n${log}`)), 20000);
        tabi.stderr.on('data', (some) => {
            if (limit.hasRef()) log += some;
            const found = /status page at (\S+)/.exec(log);
            if (found) {
                clearTimeout(limit);
                limit.unref();
                log = '';
                resolve(found[1]);
            }
        });
        tabi.on('exit', () => reject(new Error(`tabi has ended:\n${log}`)));
    });
    return tabi;
}

// Reads exactly so many bytes.
function take(socket, length) {
    return new Promise((resolve, reject) => {
        const look = () => {
            const bytes = socket.read(length);
            if (bytes) {
                socket.off('readable', look).off('close', lost);
                resolve(bytes);
            }
        };
        const lost = () => reject(new Error('the proxy has closed the connection'));
        socket.on('readable', look).on('close', lost);
        look();
    });
}

// A SOCKS5 client at `from`. Gives back its connection and REP, or null if it got no reply.
async function ask(from, user, host, port, { command = 1, password = SECRET } = {}) {
    const socket = net.connect({ host: '127.0.0.1', port: PROXY, localAddress: from });
    socket.on('error', () => {});
    const text = (string) =>
        Buffer.concat([Buffer.from([Buffer.byteLength(string)]), Buffer.from(string)]);
    try {
        socket.write(Buffer.concat([Buffer.from([5, 1, 2, 1]), text(user), text(password)]));
        if ((await take(socket, 4))[3] !== 0) return null;
        const ip = net.isIPv4(host);
        const address = ip ? Buffer.from([1, ...host.split('.').map(Number)])
            : Buffer.concat([Buffer.from([3]), text(host)]);
        const ports = Buffer.from([port >> 8, port & 255]);
        socket.write(Buffer.concat([Buffer.from([5, command, 0]), address, ports]));
        const reply = await take(socket, 10);
        return { socket, rep: reply[1], bound: reply.readUInt16BE(8) };
    } catch {
        return null;
    }
}

// Targets: one that sends as fast as it is told to, one that takes everything, one that answers
// once.
function startTargets() {
    const speed = { bytes: 0 };
    const chunk = Buffer.alloc(64 * 1024, 'tabi');
    const quiet = (socket) => socket.on('error', () => {});
    const streams = new Set();
    setInterval(() => {
        for (const socket of streams) {
            const wave = 1 + 0.6 * Math.sin(Date.now() / 9000 + socket.remotePort);
            const bytes = Math.round(speed.bytes * wave / 20 / streams.size);
            if (socket.writableLength < chunk.length) socket.write(chunk.subarray(0, bytes));
        }
    }, 50).unref();
    const source = net.createServer((socket) => {
        quiet(socket).resume();
        streams.add(socket);
        socket.on('close', () => streams.delete(socket));
    });
    const sink = net.createServer((socket) => quiet(socket).resume());
    const page = net.createServer((socket) => quiet(socket).once('data', () => socket.end(chunk)));
    const listen = (server, host, port) =>
        new Promise((resolve) => server.listen({ host, port, backlog: 4096 }, resolve));
    return Promise.all([
        listen(source, '203.0.113.11', 443), listen(sink, '203.0.113.12', 22),
        listen(page, '203.0.113.10', 443), listen(net.createServer(quiet), '203.0.113.13', 443),
    ]).then(() => speed);
}

// One page after the other, and now and then what goes wrong.
async function browse(from, user, goesOn) {
    for (let turn = 0; goesOn(); turn++) {
        const got = await ask(from, user, 'www.example.org', 443);
        if (got) {
            got.socket.resume().end('GET / HTTP/1.1\r\n\r\n');
            await new Promise((resolve) => got.socket.on('close', resolve));
        }
        if (turn % 7 === 3) (await ask(from, user, 'no-such-name.invalid', 80))?.socket.destroy();
        if (turn % 9 === 5) (await ask(from, user, '203.0.113.19', 80))?.socket.destroy();
        if (turn % 11 === 6) (await ask(from, user, '203.0.113.14', 81))?.socket.destroy();
        await new Promise((resolve) => setTimeout(resolve, 300 + 200 * Math.random()));
    }
}

// An upload at some 400 kB a second.
async function upload(from, user, goesOn) {
    const { socket } = await ask(from, user, 'backup.example.net', 22);
    socket.resume();
    const beat = setInterval(() => {
        if (!goesOn()) clearInterval(beat);
        else socket.write(Buffer.alloc(20000 + 20000 * Math.random()));
    }, 70);
}

// A UDP association that sends ten datagrams a second.
async function talk(from, user, goesOn) {
    const { socket, bound } = await ask(from, user, '0.0.0.0', 0, { command: 3 });
    socket.resume();
    const echo = dgram.createSocket('udp4');
    echo.bind(53, '203.0.113.10');
    echo.on('message', (bytes, to) => echo.send(bytes, to.port, to.address));
    const client = dgram.createSocket('udp4');
    client.bind(0, from).on('message', () => {});
    const header = Buffer.from([0, 0, 0, 1, 203, 0, 113, 10, 0, 53]);
    const datagram = Buffer.concat([header, Buffer.alloc(200)]);
    const beat = setInterval(() => {
        if (!goesOn()) {
            clearInterval(beat);
            client.close();
            echo.close();
        } else {
            client.send(datagram, bound, '127.0.0.1');
        }
    }, 100);
}

// Lets a household in. Gives back what ends it again.
async function startHousehold(speed) {
    let lives = true;
    const goesOn = () => lives;
    speed.bytes = 3e6;
    const held = [];
    const hold = async (...asked) => held.push(await ask(...asked));
    await hold('192.168.1.20', 'alice', 'video.example.com', 443);
    await hold('192.168.1.21', 'bob', 'video.example.com', 443);
    await hold('192.168.1.21', 'bob', 'cdn.example.com', 443);
    await hold('192.168.1.22', 'carol', 'backup.example.net', 22);
    const hostile = await ask('192.168.1.23', HOSTILE, '<script>alert(1)</script>.example.net', 443);
    await hold('192.168.1.24', 'alice', '203.0.113.12', 22);
    for (const { socket } of held) socket.resume();
    await upload('192.168.1.22', 'carol', goesOn);
    await talk('192.168.1.25', 'bob', goesOn);
    for (const host of [20, 21, 24, 26]) browse(`192.168.1.${host}`, 'alice', goesOn);
    // A guesser is turned away once it has tried 33 names.
    for (let attempt = 0; attempt < 40; attempt++) {
        await ask('192.168.1.29', `guess${attempt}`, 'www.example.org', 443);
        const stranger = { host: '127.0.0.1', port: PROXY, localAddress: '198.51.100.7' };
        net.connect(stranger).on('error', () => {});
    }
    return {
        sessions: held.length + 3,
        hostile: hostile.socket,
        end() {
            lives = false;
            speed.bytes = 0;
            for (const { socket } of held) socket.destroy();
        },
    };
}

module.exports = { HOSTILE, ask, startTabi, startTargets, startHousehold };
