// The programs of docs/postgres.md run here against a real PostgreSQL, so that they cannot go stale.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { postgresProgram, startPostgres } from '@spillway/engines'
import { runProgram, snippetsOf } from './support.ts'

const printedUrl = 'postgres://postgres@127.0.0.1:5432/postgres'
const skip = postgresProgram() ? false : 'no PostgreSQL on this machine'

test('the log in PostgreSQL: the programs do what the page says', { skip }, async (t) => {
  const server = await startPostgres()
  t.after(() => server.remove())
  const page = snippetsOf('docs/postgres.md')
  const [first = '', second = '', ...more] = page('ts').map((program) => program.replace(printedUrl, server.url))
  assert.equal(await runProgram(first), page('text')[0])
  assert.equal(await runProgram(second), '')
  const followed = `
    import postgres from 'postgres'
    import { postgresLog } from 'spillway/log/postgres'
    const sql = postgres('${server.url}')
    const log = await postgresLog({ sql })
    while (log.last < 2) await new Promise((resolve) => log.follow(resolve))
    console.log((await log.read(1, 1)).batches[0].events[0].type)
    await log.close()
    await sql.end()`
  assert.equal(await runProgram(followed), 'OrderChanged\n')
  assert.deepEqual(more, [])
})
