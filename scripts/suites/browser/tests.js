// What a visitor of the status page sees. See scripts/suites/status-page.
'use strict';
const { spawnSync } = require('node:child_process');
const path = require('node:path');
const { chromium } = require('playwright-core');
const { HOSTILE, ask, startTabi, startTargets, startHousehold } = require('./sessions.js');

const keep = process.argv.includes('--keep');
const screenshots = keep ? path.join(__dirname, '../../docs') : process.env.SCREENSHOTS;
const LIMIT = 30000;

let passed = 0, failed = 0;
async function check(name, test) {
    try {
        await test();
        passed++;
        console.log(`ok   ${name}`);
    } catch (error) {
        failed++;
        console.log(`FAIL ${name}\n       ${error.stack.replaceAll('\n', '\n       ')}`);
    }
}

function same(found, expected) {
    const [a, b] = [found, expected].map((value) => JSON.stringify(value));
    if (a !== b) throw new Error(`expected: ${b}\nfound:    ${a}`);
}

// Waits until `look` gives something true, and gives that back.
async function until(what, look) {
    for (const end = Date.now() + LIMIT; Date.now() < end;) {
        const found = await look();
        if (found) return found;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`${what}: not within ${LIMIT / 1000} s`);
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// What stands in a column, from the top.
const column = (page, key) => texts(page, `#rows td.${key}`);
const texts = (page, places) =>
    page.$$eval(places, (found) => found.map((element) => element.textContent));

const UNITS = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
const bytes = (text) => {
    const [, number, unit] = /^([\d.]+) (\w+)/.exec(text);
    return Number(number) * UNITS[unit];
};

async function open(browser, url, options = {}) {
    const viewport = { width: 1280, height: 900 };
    const context = await browser.newContext({ viewport, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(LIMIT);
    page.troubles = [];
    page.asked = new Set();
    page.on('console', (told) => told.type() === 'error' && page.troubles.push(told.text()));
    page.on('pageerror', (error) => page.troubles.push(error.message));
    page.on('dialog', (dialog) => {
        page.troubles.push(`a dialog: ${dialog.message()}`);
        dialog.dismiss();
    });
    page.on('request', (request) => page.asked.add(request.url()));
    await page.goto(url);
    await page.waitForSelector('#state.good');
    return page;
}

async function liveValues(page, household) {
    await check('the page shows every live session', async () => {
        await until('the sessions', async () =>
            (await column(page, 'client')).length >= household.sessions);
    });
    await check('live values change: the sums, a session, the chart', async () => {
        const look = () => page.evaluate(() => {
            const video = [...document.querySelectorAll('#rows tbody tr')].find((tr) =>
                tr.querySelector('.destination').textContent === 'video.example.com:443');
            return {
                sum: document.getElementById('down-sum').textContent,
                row: video?.querySelector('.down').textContent,
                chart: document.querySelector('#chart .down')?.getAttribute('d'),
            };
        });
        const before = await until('a first value', async () => {
            const seen = await look();
            return seen.row && seen.chart && seen;
        });
        await until('a change', async () => {
            const now = await look();
            return bytes(now.sum) > bytes(before.sum) && bytes(now.row) > bytes(before.row)
                && now.chart !== before.chart;
        });
    });
    await check('throughput, slots, threads and descriptors have values', async () => {
        await until('throughput', async () => bytes(await page.textContent('#down')) > 1e5);
        for (const [id, form] of [['slots', /^\d+ of [\d,]+$/], ['threads', /^\d+ of [\d,]+$/],
            ['descriptors', /^\d+ of [\d,]+$/]]) {
            const text = await page.textContent(`#${id}`);
            if (!form.test(text)) throw new Error(`${id}: ${text}`);
        }
    });
    await check('it says for how long the server has been up', async () => {
        const told = /^up (\d+ min )?\d+ s$/;
        await until('up', async () => told.test(await page.textContent('#running')));
    });
    await check('clients and users have rates and sums, those who move most first', async () => {
        const first = (key) => page.textContent(`#names tbody tr:first-child td.${key}`);
        for (const [by, head, name] of [['clients', 'Client', /^192\.168\.1\./], ['users', 'User', /^\w+$/]]) {
            await page.selectOption('#by', by);
            same(await page.textContent('#names th'), head);
            await until(`rates ${by}`, async () => name.test(await first('name'))
                && bytes(await first('down-rate')) > 1e5 && bytes(await first('down')) > 1e5);
        }
        await page.selectOption('#by', 'clients');
    });
    await check('a click on a client shows its sessions', async () => {
        const name = await page.textContent('#names tbody tr:first-child button');
        await page.click('#names tbody tr:first-child button');
        const shown = await column(page, 'client');
        same([shown.length > 0, shown.every((client) => client.includes(name))], [true, true]);
        await page.fill('#filter', '');
    });
    await check('outcomes, refusals and lookups are counted by their words', async () => {
        for (const [id, wanted] of [
            ['outcomes', ['closed', 'denied', 'unresolved', 'refused', 'bad-credentials']],
            ['refused', ['network', 'penalty']],
            ['lookups', ['found', 'failed']],
        ]) {
            await until(`${wanted} of ${id}`, async () => {
                const words = await texts(page, `#${id} dt`);
                return wanted.every((word) => words.includes(word));
            });
        }
    });
}

async function sortAndFilter(page) {
    await check('sorting by bytes, falling and rising', async () => {
        for (const direction of ['descending', 'ascending']) {
            await page.click('th[data-key=down] button');
            same(await page.getAttribute('th[data-key=down]', 'aria-sort'), direction);
            await until(direction, async () => {
                const values = (await column(page, 'down')).map(bytes);
                const sign = direction === 'ascending' ? 1 : -1;
                const order = [...values].sort((a, b) => sign * (a - b));
                return values.length > 5 && JSON.stringify(values) === JSON.stringify(order);
            });
        }
    });
    await check('sorting by client counts as people do', async () => {
        await page.click('th[data-key=client] button');
        const values = await column(page, 'client');
        same(values, [...values].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })));
    });
    await check('filtering by several words, and nothing that matches', async () => {
        await page.fill('#filter', 'BOB video');
        same(await column(page, 'user'), ['bob']);
        await page.fill('#filter', 'no such session');
        same(await column(page, 'user'), []);
        same(await page.isVisible('#nothing'), true);
        await page.fill('#filter', '');
        await until('all of them', async () => (await column(page, 'user')).length > 5);
    });
    await page.click('th[data-key=age] button');
}

async function hostility(page, url) {
    await check('a hostile name does not become markup', async () => {
        const users = await column(page, 'user');
        same(users.includes(HOSTILE), true);
        const destinations = await column(page, 'destination');
        same(destinations.includes('<script>alert(1)</script>.example.net:443'), true);
        same(await page.$$eval('table img, table script, main script', (found) => found.length), 0);
    });
    await check('and could not, if the page made a mistake', async () => {
        const told = await page.evaluate(() => {
            try {
                document.querySelector('#rows tbody').innerHTML = '<img src=x onerror=alert(1)>';
                return 'markup was made';
            } catch (error) {
                return error.name;
            }
        });
        same(told, 'TypeError');
        page.troubles = page.troubles.filter((told) => !told.includes('TrustedHTML'));
    });
    await check('it asks for nothing but itself and the sessions, without an error', async () => {
        const asked = [...page.asked].filter((asked) => !asked.startsWith('data:'));
        same(asked, [url, `${url}sessions`]);
        same(page.troubles, []);
    });
}

// What sticks out of the window, out of its box, or out of the chart.
const sticksOut = (page) => page.evaluate(() => {
    const isWide = (box) => box.scrollWidth > box.clientWidth;
    const boxes = [document.documentElement, ...document.querySelectorAll('.scroll, section')];
    const isCut = ({ x, width }, chart) => x < 0 || x + width > chart.clientWidth + 1;
    const chart = document.getElementById('chart');
    const labels = [...chart.querySelectorAll('text')].filter((text) => isCut(text.getBBox(), chart));
    return [...boxes.filter(isWide), ...labels].map((it) => it.outerHTML.slice(0, 200));
});

async function looks(browser, url) {
    const viewport = { width: 390, height: 844 };
    const phone = { viewport, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
    const half = { viewport: { width: 800, height: 900 } };
    for (const [name, options] of [
        ['light', { colorScheme: 'light' }], ['dark', { colorScheme: 'dark' }],
        ['half-light', { ...half, colorScheme: 'light' }], ['half', { ...half, colorScheme: 'dark' }],
        ['phone-light', { ...phone, colorScheme: 'light' }],
        ['phone', { ...phone, colorScheme: 'dark' }],
    ]) {
        await check(`it fits its window and takes its colours: ${name}`, async () => {
            const page = await open(browser, url, options);
            await page.waitForSelector('#rows tbody tr');
            const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
            same(await sticksOut(page), []);
            same(Number(ground.match(/\d+/)[0]) < 128, options.colorScheme === 'dark');
            if (!keep || ['light', 'dark', 'phone'].includes(name)) {
                const file = path.join(screenshots, `status-page-${name}.png`);
                await page.screenshot({ path: file, fullPage: !options.isMobile });
                if (keep) spawnSync('pngquant', ['--force', '--ext', '.png', file]);
            }
            await page.context().close();
        });
    }
}

async function widths(browser, url) {
    const page = await open(browser, url);
    // As long as they come: addresses of IPv6, and a rate of 10.0 MB/s.
    await page.route('**/sessions', async (route) => {
        const answer = await route.fetch();
        const told = await answer.json();
        told.history.down[0] = 9.9e6;
        const long = '[2001:db8:1234:5678:9abc:def0:1234:5678]:50000';
        for (const session of told.sessions) {
            Object.assign(session, { client: long, reached: long, via: '192.168.100.200:1080' });
        }
        for (const client of told.clients) client.name = long;
        await route.fulfill({ response: answer, json: told });
    });
    for (const width of [1280, 1130, 1100, 800, 720, 700, 400, 320]) {
        await check(`nothing sticks out at a width of ${width}`, async () => {
            await page.setViewportSize({ width, height: 900 });
            await page.reload();
            await page.waitForSelector('#rows tbody tr td.via:not(.none)');
            if (!keep) {
                const file = path.join(screenshots, `width-${width}.png`);
                await page.screenshot({ path: file, fullPage: true });
            }
            same(await sticksOut(page), []);
        });
    }
    await page.context().close();
}

async function metrics(url) {
    await check('promtool finds nothing to say against the metrics', async () => {
        const text = await (await fetch(`${url}metrics`)).text();
        const told = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
        same([told.status, told.stdout + told.stderr], [0, '']);
    });
}

async function crowd(page, url) {
    await check('4,000 live sessions: all of them in the JSON, the page goes on', async () => {
        const asked = [];
        for (let some = 0; some < 40; some++) {
            asked.push(...await Promise.all(Array.from({ length: 100 }, () =>
                ask(`192.168.1.${20 + some % 8}`, 'alice', '203.0.113.12', 22))));
        }
        same(asked.every((got) => got?.rep === 0), true);
        for (const what of ['metrics', 'sessions', 'metrics', 'sessions']) {
            await pause(1);
            const begin = performance.now();
            const text = await (await fetch(url + what)).text();
            const took = performance.now() - begin;
            console.log(`     /${what}: ${text.length} bytes in ${took.toFixed(1)} ms`);
            same(took < 5000, true);
            if (what === 'sessions') same(JSON.parse(text).sessions.length >= 4000, true);
        }
        await until('the page', async () =>
            (await page.textContent('#shown')).startsWith('first 500 of 4,0'));
        for (const { socket } of asked) socket.destroy();
    });
}

async function theEnd(tabi, page) {
    await check('a server that drains says so', async () => {
        tabi.kill('SIGTERM');
        await page.waitForSelector('#state.warn');
        same(await page.textContent('#state'), 'draining: no new clients');
    });
    await check('the page says when the server is gone', async () => {
        tabi.kill('SIGKILL');
        await tabi.gone;
        await page.waitForSelector('#gone:not([hidden])');
        const told = await page.textContent('#gone');
        same(told.startsWith('The server has not answered since'), true);
        same(await page.getAttribute('#state', 'class'), 'bad');
    });
}

async function main() {
    const tabi = await startTabi(['--grace', '60']);
    const household = await startHousehold(await startTargets());
    // Chromium has no sandbox for root.
    const launch = { executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] };
    const browser = await chromium.launch(launch);
    const page = await open(browser, tabi.url);
    await liveValues(page, household);
    await sortAndFilter(page);
    await hostility(page, tabi.url);
    household.hostile.destroy();
    await pause(keep ? 300 : 10);
    await looks(browser, tabi.url);
    await widths(browser, tabi.url);
    await metrics(tabi.url);
    await crowd(page, tabi.url);
    await theEnd(tabi, page);
    household.end();
    await browser.close();
    console.log(`${passed} passed, ${failed} failed`);
    process.exit(failed > 0 ? 1 : 0);
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
