// Every snippet of docs/client.md, and the program of docs/filters.md, runs here, so that none of them can go stale.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { printedUrl, runProgram, serve, snippetsOf } from './support.ts'

const [first = '', options = '', tabs = '', ...more] = snippetsOf('docs/client.md')('ts')

let server: Awaited<ReturnType<typeof serve>>
before(async () => {
  server = await serve()
})
after(() => server.stop())

test('the first program follows what it publishes', async () => {
  assert.equal(await runProgram(first.replace(printedUrl, server.url)), 'A1 12\n')
})

test('a filter of docs/filters.md lets through what it says', async () => {
  const filters = snippetsOf('docs/filters.md')
  const [program = ''] = filters('ts')
  assert.equal(await runProgram(program.replace(printedUrl, server.url)), filters('text')[1])
})

test('the program of the tabs runs, and ends', async () => {
  assert.equal(await runProgram(tabs.replace(printedUrl, server.url)), 'A1\n')
})

test('the options are options', async () => {
  const program = options.replace('https://events.example/prefix', server.url).replace('timeout(5000)', 'timeout(1000)')
  assert.equal(await runProgram(program), 'connecting\nopen\nclosed\n')
  assert.deepEqual(more, [])
})
