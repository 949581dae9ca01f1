// A PAC file in an engine that has nothing of what PAC files can call: one that looks names up fails.
//
// pac.js PAC_FILE writes, for each host on its standard input, the host and where the file sends it.

'use strict';
const fs = require('fs');
const vm = require('vm');

const { FindProxyForURL } = vm.runInNewContext(`${fs.readFileSync(process.argv[2])}; this`, {});
for (const host of fs.readFileSync(0, 'utf8').trimEnd().split('\n')) {
  console.log(host, FindProxyForURL(`http://${host}/`, host));
}
