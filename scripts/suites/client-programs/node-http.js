// Node's own HTTP client (undici) through the proxy that the environment names.
//
// node-http.js URL BLOB fetches URL/blob and sends the file BLOB to URL/, chunked, says `same` when both arrived
// unchanged, and fails otherwise. NODE_PATH says where the package is.

'use strict';
const crypto = require('crypto');
const fs = require('fs');
const { EnvHttpProxyAgent, request, setGlobalDispatcher } = require('undici');

const [url, file] = process.argv.slice(2);

async function body(answering) {
  const answer = await answering;
  const content = Buffer.from(await answer.body.arrayBuffer());
  if (answer.statusCode !== 200) throw new Error(`${answer.statusCode} ${content}`);
  return content;
}

async function main() {
  setGlobalDispatcher(new EnvHttpProxyAgent());
  const blob = fs.readFileSync(file);
  const came = await body(request(`${url}/blob`));
  const digest = await body(request(`${url}/`, { method: 'POST', body: fs.createReadStream(file) }));
  if (!came.equals(blob) || digest.toString() !== crypto.createHash('sha256').update(blob).digest('hex')) {
    throw new Error('what arrived differs from what was sent');
  }
  console.log('same');
}

main().catch((error) => {
  console.error(String(error), String(error.cause ?? ''));
  process.exit(1);
});
