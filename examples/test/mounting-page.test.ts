// Every program of docs/mounting.md runs here, so that none of them can go stale.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runProgram, snippetsOf } from './support.ts'

/** Asks the server of a program for its health wherever it may stand, and ends. */
const probe = `
if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
const { port } = server.address()
const answers = await Promise.all(['', '/api'].map((path) => fetch('http://127.0.0.1:' + port + path + '/v1/status')))
console.log(answers.some(({ status }) => status === 200))
process.exit()`

for (const program of snippetsOf('docs/mounting.md')('ts')) {
  const [, framework] = /from '([\w@/-]+)'/.exec(program) ?? []
  test(`${framework} serves the faces`, async () => {
    assert.equal(await runProgram(program + probe), 'true\n')
  })
}
