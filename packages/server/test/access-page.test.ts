// Every snippet of docs/access.md is used here, so that none of them can go stale.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { Permit, type Rights, type Rule } from 'spillway'
import { parseTokenDocument } from '../src/auth/token-document.ts'
import { packageFolder } from '../src/package.ts'
import { folder } from './support/folder.ts'

const page = readFileSync(path.join(packageFolder, '../../docs/access.md'), 'utf8')
const bin = path.join(import.meta.dirname, '../src/bin.js')

function snippets(language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, text = '']) => text)
}

const [rule = '', file = '', claims = ''] = snippets('json')

test('the rule, the file and the claims are right ones', () => {
  new Permit('rule', [JSON.parse(rule) as Rule])
  assert.equal(parseTokenDocument(file).tokens.length, 1)
  const { spillway } = JSON.parse(claims) as { spillway: Rights }
  new Permit('read', spillway.read)
  new Permit('publish', spillway.publish)
})

test('the commands work on the file', async (t) => {
  const cwd = await folder(t)
  await writeFile(path.join(cwd, 'spillway-tokens.json'), file, { mode: 0o600 })
  const script = `set -e\nspillway() { "$NODE" "$BIN" "$@"; }\n${snippets('sh').join('')}\nspillway token list --json`
  const env = { ...process.env, NODE: process.execPath, BIN: bin }
  const { stdout } = await promisify(execFile)('bash', ['-c', script], { cwd, env })
  const left = JSON.parse(stdout.split('\n').at(-2) ?? '') as { name: string }[]
  assert.deepEqual(
    left.map(({ name }) => name),
    ['backend', 'dashboard', 'laptop'],
  )
})
