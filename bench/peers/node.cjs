// node-fastcgi, Node's usual FastCGI library. Its directory is the first argument.
const [, , directory, port] = process.argv;
const fastcgi = require(directory);

fastcgi.createServer((request, response) => {
  response.setHeader("Content-Type", "text/plain");
  if (request.url === "/headers") {
    let length = 0;
    for (const [name, value] of Object.entries(request.headers)) {
      length += name.length + value.length;
    }
    for (let i = 1; i <= 19; i++) response.setHeader(`X-Field-${i}`, `the value of header ${i}`);
    const cookies = [1, 2, 3].map((i) => `c${i}=0123456789abcdef; Path=/`);
    response.setHeader("Set-Cookie", cookies);
    response.end(`${length > 900}`);
  } else if (request.url === "/echo") {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => response.end(Buffer.concat(parts)));
  } else if (request.url === "/upload") {
    let length = 0;
    request.on("data", (part) => length += part.length);
    request.on("end", () => response.end(`${length}`));
  } else {
    response.end("Hello, world");
  }
}).listen(Number(port), "127.0.0.1");
