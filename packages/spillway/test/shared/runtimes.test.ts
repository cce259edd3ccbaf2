import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { jsonLines, runtime } from '../support/runtimes.ts'

const script = path.join(import.meta.dirname, 'run.js')

for (const name of ['node', 'bun', 'deno'] as const) {
  const program = name === 'node' ? process.execPath : runtime(name)
  test(`readers of every kind are woken in ${name}`, { skip: !program && `no ${name} for this machine` }, async () => {
    const allowed = name === 'deno' ? ['run', '--allow-all'] : []
    assert.deepEqual(
      await jsonLines(program as string, [...allowed, script]),
      ['loop', 'blocking', 'doorbell'].flatMap((kind) => ['a', 'b'].map((got) => ({ kind, got }))),
    )
  })
}
