/**
 * The least that a gateway to CGI programs does on Deno: runs the program with a few variables and sends what it prints.
 * No program can be killed together with its children, nothing is logged, and the head is not read.
 */
const [port, program, setsid] = Deno.args;
const [first, ...args] = setsid === undefined ? [program] : [setsid, program];
await Deno.serve(
  { hostname: "127.0.0.1", port: Number(port), onListen() {} },
  async ({ method }) => {
    const command = new Deno.Command(first, {
      args,
      env: { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: method },
      clearEnv: true,
      stdin: "null",
    });
    const { stdout } = await command.output();
    return new Response(stdout.subarray(stdout.indexOf(10, stdout.indexOf(10) + 1) + 1));
  },
).finished;
