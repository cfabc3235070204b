// Search in a built site with the theme's own worker: node search.js WORKER INDEX, queries as JSON on standard input.
// Prints, for each query, the pages in the order in which the site shows them.
const fs = require("fs");
const vm = require("vm");

const [worker, index] = process.argv.slice(2);
const queries = JSON.parse(fs.readFileSync(0, "utf8"));
const READY = 1, QUERY = 2, RESULT = 3;
const found = [];

const scope = { console, setTimeout, clearTimeout, TextEncoder, TextDecoder, URL, location: { href: "http://localhost/" } };
scope.self = scope.window = scope.globalThis = scope;
scope.importScripts = () => {};
scope.addEventListener = (_, listener) => { scope.receive = listener; };
scope.postMessage = (message) => {
  if (message.type === RESULT) {
    const pages = message.data.items.map((sections) => sections[0].location.replace(/#.*/, ""));
    found.push([...new Set(pages)]);
  }
  if (message.type === READY || message.type === RESULT) next();
};

function next() {
  if (found.length === queries.length) process.stdout.write(JSON.stringify(found));
  else scope.receive({ data: { type: QUERY, data: queries[found.length] } });
}

vm.createContext(scope);
vm.runInContext(fs.readFileSync(worker, "utf8"), scope);
const { config, docs } = JSON.parse(fs.readFileSync(index, "utf8"));
scope.receive({ data: { type: 0, data: { config, docs, options: { suggest: false } } } });
