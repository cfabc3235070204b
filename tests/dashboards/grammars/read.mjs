// Reads queries by their grammars: `node read.mjs FOLDER`, where FOLDER has node_modules. Standard input is a JSON list of
// objects with `language`, `logql` or `traceql`, and `query`. Standard output is one of lists: the nodes of each query's
// tree, outermost first, as `name`, `from`, `to` and `error`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const load = createRequire(join(process.argv[2], "package.json"));
const parsers = {
  logql: load("@grafana/lezer-logql").parser,
  traceql: load("@grafana/lezer-traceql").parser,
};

function nodes({ language, query }) {
  const found = [];
  parsers[language].parse(query).iterate({
    enter: ({ name, from, to, type }) => {
      found.push({ name, from, to, error: type.isError });
    },
  });
  return found;
}

const asked = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(asked.map(nodes)));
