import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pinnedNode, systemNode } from '../lib.mjs'
import { testFiles, testsOn } from '../tests.mjs'
import { temporaryFolder } from './temporary.mjs'

const program = (...lines) => ["import { describe, test } from 'node:test'", ...lines].join('\n')

async function runOn(t, node, files, options) {
  const root = temporaryFolder(
    t,
    Object.fromEntries(Object.entries(files).map(([name, text]) => [`a/test/${name}`, text])),
  )
  const lines = []
  t.mock.method(console, 'log', (line) => lines.push(line))
  const result = await testsOn(node, root, 'a', testFiles(root, 'a', []), options)
  t.mock.restoreAll()
  return { ...result, output: lines.join('\n') }
}

for (const node of new Set([pinnedNode, systemNode])) {
  const on = `on ${node === pinnedNode ? 'the pinned' : "the system's"} Node`

  test(`${on}, tests are counted, and failures and reasons are told`, async (t) => {
    const { passed, failed, skipped, problem, output } = await runOn(t, node, {
      'a.test.mjs': program(
        "test('good', () => {})",
        "describe('suite', () => {",
        "  test('bad', () => { throw new Error('the reason') })",
        "  test('absent', { skip: 'no such program' }, () => {})",
        '})',
      ),
      'b.test.mjs': program("test('outer', async (t) => { await t.test('inner', () => {}) })"),
    })
    assert.deepEqual({ passed, failed, skipped, problem }, { passed: 3, failed: 1, skipped: 1, problem: undefined })
    assert.match(output, /FAILED: suite > bad .*a\.test\.mjs:4/)
    assert.match(output, /the reason/)
    assert.match(output, /skipped: suite > absent \(no such program\)/)
    assert.match(output, /test\/b\.test\.mjs: 2 passed/)
  })

  test(`${on}, a file that breaks is a failure`, async (t) => {
    const { failed, output } = await runOn(t, node, {
      'a.test.mjs': program("test('good', () => {})", "console.log('last words')", 'process.exitCode = 7'),
      'b.test.mjs': 'throw new Error("before any test")',
    })
    assert.equal(failed, 2)
    assert.match(output, /before any test/)
    assert.match(output, /last words/)
  })

  test(`${on}, files without tests are a failure`, async (t) => {
    const { passed, failed, output } = await runOn(t, node, { 'a.test.mjs': '' })
    assert.deepEqual({ passed, failed }, { passed: 0, failed: 1 })
    assert.match(output, /It holds no test/)
  })

  test(`${on}, tests that a shared suite defines are counted`, async (t) => {
    const { passed, failed, output } = await runOn(t, node, {
      'suite.mjs': program("export const suite = () => test('shared', () => {})"),
      'a.test.mjs': "import { suite } from './suite.mjs'\nsuite()",
    })
    assert.deepEqual({ passed, failed }, { passed: 1, failed: 0 }, output)
  })

  test(`${on}, a hook that fails is a failure`, async (t) => {
    const { failed } = await runOn(t, node, {
      'a.test.mjs': program(
        "import { after } from 'node:test'",
        "describe('suite', () => {",
        "  after(() => { throw new Error('left behind') })",
        "  test('good', () => {})",
        '})',
      ),
    })
    assert.equal(failed, 1)
  })

  test(`${on}, a file that never ends is a failure`, async (t) => {
    const hanging = program("test('waits', () => new Promise(() => setInterval(() => {}, 1000)))")
    const { passed, failed, problem } = await runOn(t, node, { 'a.test.mjs': hanging }, { timeout: 1000 })
    assert.equal(passed, 0)
    assert.ok(failed > 0 || problem !== undefined)
  })
}
