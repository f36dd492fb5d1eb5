// Asks the site's own search, with as little of a browser as it needs to be loaded.
//
//     node test_docs_site.js SITE QUESTION…
//
// prints the pages that each question finds, as JSON.
const fs = require("fs");
const vm = require("vm");

const [site, ...questions] = process.argv.slice(2);
const browser = vm.createContext({
    document: { documentElement: { dataset: { content_root: "" } }, getElementById() {} },
    window: {},
    SPHINX_HIGHLIGHT_ENABLED: false,
    _ready() {}, // nothing is to be shown
    _removeChildren() {},
});
for (const name of ["_static/language_data.js", "_static/searchtools.js", "searchindex.js"]) {
    vm.runInContext(fs.readFileSync(`${site}/${name}`, "utf8"), browser);
}
const find = vm.runInContext(
    "(question) => Search._performSearch(...Search._parseQuery(question)).map((found) => found[0])",
    browser,
);
console.log(JSON.stringify(questions.map(find)));
