/**
 * A JSR registry on loopback, to run this package as its users do. It serves the files that `deno publish` would
 * upload, and the stand-ins as `@std/*`.
 */
import { createHash } from "node:crypto";
import { globSync } from "node:fs";
import config from "../../deno.json" with { type: "json" };
import { ROOT } from "./daemon.ts";

interface Package {
  version: string;
  /** The file of each entry point. */
  exports: Record<string, string>;
  /** The contents of each file. Names begin with a slash: "/mod.ts". */
  files: Record<string, Uint8Array<ArrayBuffer>>;
}

/** Packages of the standard library: the version, an entry point and its stand-in. */
const STANDARD: Record<string, [version: string, entry: string, standIn: string]> = {
  "@std/assert": ["1.0.0", ".", "assert.ts"],
  "@std/cli": ["1.0.0", "./parse-args", "cli.ts"],
  "@std/io": ["0.225.0", "./buffer", "io.ts"],
};

/** Matches an import specifier that begins with a package's name. */
const PACKAGE = /(?<=\bfrom |\bimport\()"(@[\w-]+\/[\w-]+|[a-z][\w-]*)((?:\/[^"]*)?)"/g;

/** Replaces package names by what deno.json maps them to, as `deno publish` does. */
function writeOutSpecifiers(source: string): string {
  const imports: Record<string, string> = config.imports;
  return source.replace(
    PACKAGE,
    (specifier, name: string, path: string) =>
      name in imports ? `"${imports[name]}${path}"` : specifier,
  );
}

function ownPackage(): Package {
  const patterns = ["deno.json", ...config.publish.include]
    .map((path) => path.endsWith("/") ? `${path}**/*` : path);
  const paths = globSync(patterns, { cwd: ROOT }).filter((path) =>
    Deno.statSync(ROOT + path).isFile
  );
  const files = paths.map((path) => {
    const source = Deno.readTextFileSync(ROOT + path);
    return [`/${path}`, path.endsWith(".ts") ? writeOutSpecifiers(source) : source];
  });
  return packageOf(config.version, config.exports, Object.fromEntries(files));
}

function packageOf(
  version: string,
  exports: Record<string, string>,
  sources: Record<string, string>,
): Package {
  const encoder = new TextEncoder();
  const files = Object.entries(sources).map(([path, source]) => [path, encoder.encode(source)]);
  return { version, exports, files: Object.fromEntries(files) };
}

function standardPackages(): [name: string, Package][] {
  return Object.entries(STANDARD).map(([name, [version, entry, file]]) => {
    const source = Deno.readTextFileSync(`${ROOT}scripts/stand_ins/${file}`);
    return [name, packageOf(version, { [entry]: `./${file}` }, { [`/${file}`]: source })];
  });
}

/** Returns the metadata of a package's version. */
function metadataOf({ exports, files }: Package): unknown {
  const manifest = Object.entries(files).map(([path, contents]) => {
    const checksum = `sha256-${createHash("sha256").update(contents).digest("hex")}`;
    return [path, { size: contents.length, checksum }];
  });
  return { manifest: Object.fromEntries(manifest), exports };
}

/** A registry that serves this package in its current version. */
export class Registry implements AsyncDisposable {
  /** The value for JSR_URL. */
  readonly url: string;
  readonly #packages = new Map([[config.name, ownPackage()], ...standardPackages()]);
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor() {
    this.#server = Deno.serve({
      hostname: "127.0.0.1",
      port: 0,
      onListen: () => {},
    }, (request) => this.#respond(new URL(request.url).pathname));
    this.url = `http://127.0.0.1:${this.#server.addr.port}/`;
  }

  /** Returns variables that make Deno load packages from here and cache them in a directory. */
  env(directory: string): Record<string, string> {
    return { JSR_URL: this.url, DENO_DIR: `${directory}/deno_dir` };
  }

  #respond(path: string): Response {
    const [, name, file] = /^\/(@[^/]+\/[^/]+)\/(.+)$/.exec(path) ?? [];
    const found = this.#packages.get(name);
    if (found !== undefined) {
      const { version, files } = found;
      if (file === "meta.json") {
        return Response.json({ latest: version, versions: { [version]: {} } });
      }
      if (file === `${version}_meta.json`) return Response.json(metadataOf(found));
      const contents = file.startsWith(version) ? files[file.slice(version.length)] : undefined;
      if (contents !== undefined) {
        return new Response(contents, { headers: { "content-type": "text/typescript" } });
      }
    }
    return new Response("Not found\n", { status: 404 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
