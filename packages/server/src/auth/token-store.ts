import { existsSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import path from 'node:path'
import { SpillwayError } from 'spillway'
import { readChecked } from './checked-file.ts'
import { withFileLock } from './file-lock.ts'
import { replaceFile } from './replace-file.ts'
import { formatTokenDocument, parseTokenDocument, type TokenDocument } from './token-document.ts'

const empty: TokenDocument = { version: 1, policies: {}, tokens: [] }

/** Reads a file of tokens. Rejects with `CONFIG` if it cannot be used. */
export function readTokens(file: string): Promise<TokenDocument> {
  return readChecked(file, parseTokenDocument)
}

/**
 * Makes another document of the one in a file, or of an empty one if there is no file. No change of another process is
 * lost. Rejects with `CONFIG` if the file cannot be used or written; it is then as it was.
 */
export async function changeTokens(file: string, change: (document: TokenDocument) => TokenDocument): Promise<void> {
  // Behind a symbolic link the file is locked and replaced, not the link.
  const target = await realpath(file).catch(() => path.resolve(file))
  await withFileLock(target, async () => {
    const document = change(existsSync(file) ? await readTokens(file) : empty)
    const text = formatTokenDocument(document)
    // What a server would refuse must not take the place of what it can use.
    parseTokenDocument(text)
    try {
      await replaceFile(target, text)
    } catch (cause) {
      throw new SpillwayError('CONFIG', `${file} cannot be written: ${(cause as Error).message}`, { cause })
    }
  })
}
