// Asks a view for one ID, a page, a batch and an ID that is not there, with a client whose types are made from the view's OpenAPI
// document: what is misspelt or misread here does not compile.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type State = components["schemas"]["tidemark.v1.State"];

const [, , baseUrl, id, token] = process.argv;
if (!baseUrl || !id || !token) throw new Error("usage: try URL ID TOKEN");
const view = createClient<paths>({ baseUrl });

const show = (s: State) => `${s.id} version ${s.version} points ${JSON.stringify(s.totals["points"])} flags ${Object.keys(s.flags)}`;
const fail = (what: string, error: components["schemas"]["Error"]): never => {
  throw new Error(`${what}: ${error.code}: ${error.message}`);
};

const one = await view.GET("/v1/ids/{id}", { params: { path: { id }, query: { at_least: token, wait: "20s" } } });
if (one.error) fail("get", one.error);
console.log("get:", show(one.data!.state));
console.log("as of past", BigInt(one.data!.as_of.position) > BigInt(token.split("@")[1]!));

const page = await view.GET("/v1/ids", { params: { query: { prefix: "user", limit: 1 } } });
if (page.error) fail("list", page.error);
console.log("list:", page.data!.states.map(show).join("; "), page.data!.next_page_token === "" ? "and no more" : "and more");

const flagged = await view.GET("/v1/flags/{flag}/ids", { params: { path: { flag: "watched" } } });
if (flagged.error) fail("list by flag", flagged.error);
console.log("by flag:", flagged.data!.states.map((s) => s.flags["watched"]!.topic).join("; "));

const batch = await view.POST("/v1/ids:batchGet", { body: { ids: [id, "nobody"] } });
if (batch.error) fail("batch", batch.error);
console.log("batch:", batch.data!.results.map((r) => (r.state ? show(r.state) : `${r.id} not found`)).join("; "));

const none = await view.GET("/v1/ids/{id}", { params: { path: { id: "nobody" } } });
console.log("nobody:", none.response.status, none.error?.code, none.error?.details.map((d) => d.type).join());
