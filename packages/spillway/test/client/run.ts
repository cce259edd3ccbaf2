import { clientSuite } from './suite.ts'

// The suite in Bun or Deno: a line of JSON for each test. The url of the control server comes as the first argument.
const { argv } = (globalThis as unknown as { process: { argv: string[] } }).process
for (const transport of (argv[3] ?? '').split(',')) {
  for (const { name, run } of clientSuite(argv[2] as string, transport as 'sse')) {
    const failed = await run().then(
      () => undefined,
      (error: unknown) => String((error as Error)?.stack ?? error),
    )
    console.log(JSON.stringify({ name, failed }))
  }
}
