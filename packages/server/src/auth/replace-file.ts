import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'

/**
 * Puts `text` in the place of what `file` holds, so that whoever reads it, also after a power cut, finds all of the one or
 * all of the other. A new file is for its owner only; another keeps its owner and mode. One caller at a time.
 */
export async function replaceFile(file: string, text: string): Promise<void> {
  const made = `${file}-new`
  await rm(made, { force: true })
  const handle = await open(made, 'wx', 0o600)
  try {
    await takeOver(handle, file)
    await handle.writeFile(text)
    await handle.sync()
    await handle.close()
    await rename(made, file)
  } catch (error) {
    await handle.close()
    await rm(made, { force: true })
    throw error
  }
  await syncFolder(path.dirname(file))
}

// The server may run as another user than the one who runs this, and must be able to read what replaces its file.
async function takeOver(handle: FileHandle, file: string): Promise<void> {
  const before = await stat(file).catch(() => undefined)
  if (!before) return
  const made = await handle.stat()
  if (before.uid !== made.uid || before.gid !== made.gid) await handle.chown(before.uid, before.gid)
  await handle.chmod(before.mode & 0o777)
}

/** Without it a power cut may undo the rename. Windows opens no directories, and needs none. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
