import assert from 'node:assert/strict'
import { cpSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { root, run } from '../lib.mjs'
import { temporaryFolder } from './temporary.mjs'

const lockFile = JSON.stringify({
  lockfileVersion: 3,
  packages: {
    '': { workspaces: ['own'] },
    'node_modules/own': { resolved: 'own', link: true },
    own: { version: '1.0.0' },
  },
})

function setupIn(t, lock) {
  const folder = temporaryFolder(t, {
    'package.json': '{ "private": true, "workspaces": ["own"] }',
    'own/package.json': '{ "name": "own", "version": "1.0.0" }',
    'package-lock.json': lock,
  })
  const setup = path.join(folder, 'scripts/setup.mjs')
  cpSync(path.join(root, 'scripts/setup.mjs'), setup)
  return () => run(process.execPath, [setup, '--install-only'])
}

test('a Node that is too old is refused in one sentence', async () => {
  const program =
    "Object.defineProperty(process, 'versions', { value: { node: '20.18.3' } }); import('./scripts/setup.mjs')"
  const { code, output } = await run(process.execPath, ['-e', program])
  assert.equal(code, 1)
  assert.equal(output.trim(), 'set-up: Spillway needs Node 20.19 or newer to set itself up, and this is Node 20.18.3.')
})

test('an installation that fails is told and not taken for done', async (t) => {
  const setup = setupIn(t, '{ "lockfileVersion": 3, "packages": {} }')
  for (const { code, output } of [await setup(), await setup()]) {
    assert.equal(code, 1)
    assert.match(output, /set-up: npm ci ended with exit code 1\. It needs the npm registry/)
  }
})

test('what is installed is not installed again', async (t) => {
  const setup = setupIn(t, lockFile)
  const first = await setup()
  assert.match(first.output, /installing/)
  assert.equal(first.code, 0, first.output)
  assert.deepEqual(await setup(), { code: 0, output: '' })
})
