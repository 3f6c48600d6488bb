import { type ConfigOptions, httpsOrigin } from "./options.ts";
import { escape, IMMUTABLE, immutableFiles } from "./static_files.ts";

/** The endings of the files that are meant for browsers. */
const ENDINGS =
  "avif|css|gif|html|ico|jpe?g|js|json|mjs|mp3|mp4|pdf|png|svg|txt|wasm|webm|webmanifest|webp|woff2?|xml";

/** A `.htaccess` for a folder of shared hosting with an app as a CGI script and its files. */
export function htaccess(options: ConfigOptions): string {
  const { name, path, https } = options;
  const script = `${name}.cgi`;
  return `# .htaccess, in the folder that the web server shows as ${
    path || "/"
  }, beside the app, which is the
# executable script ${script}, and the files of the site. A start takes half the time with a cache of compiled code.
# To print the line that fills one, if there is none: gatehouse doctor ${script}

Options +ExecCGI +SymLinksIfOwnerMatch -Indexes -MultiViews
AddHandler cgi-script .cgi
DirectoryIndex index.html
# By itself Apache does not pass the Authorization header to a script.
CGIPassAuth On

# No file but the script and these kinds. What is no file is a path of the app.
Require expr ! -f %{REQUEST_FILENAME}
<FilesMatch "^(?:${escape(script)}|(?!(?:deno|package)[\\w-]*\\.json$)[^.].*\\.(?:${ENDINGS}))$">
  Require all granted
</FilesMatch>

RewriteEngine On
RewriteBase ${path}/
${https ? redirect(options) : ""}# Nothing in folders that begin with a dot, but for .well-known.
RewriteRule "^\\.(?!well-known/)|/\\." ${script} [END]
# A file or the index.html of a folder, else the app.
RewriteCond %{REQUEST_FILENAME} !-f
RewriteCond %{REQUEST_FILENAME}/index.html !-f
RewriteRule ^ ${script} [END]
${cache(options)}`;
}

function redirect(options: ConfigOptions): string {
  return `# Some hosts speak HTTPS in a proxy before Apache.
RewriteCond %{HTTPS} !=on
RewriteCond %{HTTP:X-Forwarded-Proto} !=https
RewriteCond %{REQUEST_URI} !^/\\.well-known/acme-challenge/
RewriteCond %{THE_REQUEST} "^\\S+ (/[^\\s?]*)"
RewriteRule ^ ${httpsOrigin(options, "%{SERVER_NAME}")}%1 [R=308,NE,END]
`;
}

function cache({ path, files }: ConfigOptions): string {
  const immutable = files && immutableFiles(files, path);
  if (immutable === undefined) return "";
  return `# Other files that never change.
RewriteCond %{REQUEST_URI} "${immutable}"
RewriteRule ^ - [E=NEVER_CHANGES:1]
<IfModule mod_headers.c>
  Header set Cache-Control "${IMMUTABLE}" env=NEVER_CHANGES
</IfModule>
`;
}
