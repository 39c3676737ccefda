// A handler for tests/suites/clients.rs: the same as app.py.
import * as fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

if (process.env.FAIL_INIT) {
  throw new TypeError("no such luck");
}

const names = (directory) => fs.readdirSync(directory).length;

function note(directory, name) {
  fs.mkdirSync(directory, { recursive: true });
  fs.writeFileSync(`${directory}/${name}`, "");
  return `${directory}/${name}`;
}

// Waits until `count` invocations are here, or `total` have been.
async function meet(event, requestId) {
  note("/tmp/came", requestId);
  const here = note("/tmp/here", requestId);
  let most = 0;
  for (;;) {
    most = Math.max(most, names("/tmp/here"));
    if (most >= event.count || names("/tmp/came") >= event.total) {
      break;
    }
    await sleep(5);
  }
  fs.unlinkSync(here);
  return { most, pid: process.pid };
}

export async function handler(event, context) {
  switch (event.do) {
    case "fail":
      throw new TypeError("sorry");
    case "exit":
      process.exit(3);
    case "told":
      return {
        request_id: context.awsRequestId,
        arn: context.invokedFunctionArn,
        remaining_ms: context.getRemainingTimeInMillis(),
        client: context.clientContext?.custom ?? null,
        trace: context.xRayTraceId ?? process.env._X_AMZN_TRACE_ID ?? null,
      };
    case "meet":
      return await meet(event, context.awsRequestId);
    case "large":
      return "x".repeat(20 << 20);
    case "await":
      // over the deadline, until the test lets go; then late
      while (!fs.existsSync(event.file)) {
        await sleep(5);
      }
      return "late";
    default:
      return { echo: event, pid: process.pid };
  }
}

// Answers piece by piece, and may fail after that.
export const streaming = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType("text/plain");
  for (let part = 0; part < event.parts; part += 1) {
    stream.write(`part ${part},`);
  }
  if (event.fail) {
    throw new RangeError("broken");
  }
  stream.end();
});
