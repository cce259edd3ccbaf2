import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { changeTokens, readTokens } from '../../src/auth/token-store.ts'
import { folder } from '../support/folder.ts'
import { madeToken, tokensText } from '../support/tokens.ts'

const { known } = madeToken({ read: 'all' })

test('a new file is for its owner only, and what replaces it keeps its mode', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  await changeTokens(file, (document) => ({ ...document, tokens: [known] }))
  assert.equal((await stat(file)).mode & 0o777, 0o600)
  await chmod(file, 0o640)
  await changeTokens(file, (document) => ({ ...document, tokens: [] }))
  assert.equal((await stat(file)).mode & 0o777, 0o640)
  assert.deepEqual((await readTokens(file)).tokens, [])
})

test('the file is replaced and not written in place, and what a killed process left does no harm', async (t) => {
  const dir = await folder(t)
  const file = path.join(dir, 'tokens.json')
  await writeFile(file, tokensText([]))
  await writeFile(`${file}-new`, 'half of a', { mode: 0o666 })
  const { ino } = await stat(file)
  await changeTokens(file, (document) => ({ ...document, tokens: [known] }))
  assert.notEqual((await stat(file)).ino, ino)
  assert.deepEqual((await readTokens(file)).tokens, [known])
  assert.deepEqual((await readdir(dir)).sort(), ['tokens.json', 'tokens.json-lock'])
})

test('behind a symbolic link the file is replaced and the link stays', async (t) => {
  const dir = await folder(t)
  await mkdir(path.join(dir, 'real'))
  await writeFile(path.join(dir, 'real', 'tokens.json'), tokensText([]))
  const link = path.join(dir, 'tokens.json')
  await symlink('real/tokens.json', link)
  await changeTokens(link, (document) => ({ ...document, tokens: [known] }))
  assert.equal(await readlink(link), 'real/tokens.json')
  assert.deepEqual((await readTokens(path.join(dir, 'real', 'tokens.json'))).tokens, [known])
})

test('a change that fails, or would make what no server can use, leaves the file as it was', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const before = tokensText([known])
  await writeFile(file, before)
  await assert.rejects(
    changeTokens(file, () => {
      throw new Error('no')
    }),
    /^Error: no$/,
  )
  await assert.rejects(
    changeTokens(file, (document) => ({ ...document, tokens: [known, known] })),
    { code: 'INVALID' },
  )
  assert.equal(await readFile(file, 'utf8'), before)
})

test('a file that is wrong is not replaced', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  await writeFile(file, '{')
  await assert.rejects(
    changeTokens(file, (document) => document),
    { code: 'CONFIG', message: /tokens\.json cannot be used: It is not JSON/ },
  )
  assert.equal(await readFile(file, 'utf8'), '{')
})

test('a directory that is not there is an error that names the file', async (t) => {
  const file = path.join(await folder(t), 'no', 'tokens.json')
  await assert.rejects(
    changeTokens(file, (document) => document),
    { code: 'CONFIG', message: /tokens\.json-lock cannot be used: unable to open.* Nothing was changed\./ },
  )
})
