import { readFile } from 'node:fs/promises'
import { SpillwayError } from 'spillway'

/** What is wrong with one field of a file. The value is not shown: somebody may have put a secret where it does not belong. */
export function invalidField(field: string, must: string): SpillwayError {
  return new SpillwayError('INVALID', `${field} must ${must}.`)
}

/** Reads and parses a file. Rejects with `CONFIG` that names the file and what is wrong with it. */
export async function readChecked<T>(file: string, parse: (text: string) => T): Promise<T> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    throw new SpillwayError(
      'CONFIG',
      code === 'ENOENT' ? `There is no ${file}.` : `${file} cannot be read: ${message}`,
      {
        cause,
      },
    )
  }
  try {
    return parse(text)
  } catch (cause) {
    if (!(cause instanceof SpillwayError)) throw cause
    throw new SpillwayError('CONFIG', `${file} cannot be used: ${cause.message}`, { cause })
  }
}

/** Throws `INVALID` that says where `text` is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    // The rest of the message quotes the text, and with it what may be a secret. So does the error as a cause.
    const [place] = / \(line \d+ column \d+\)/.exec((error as Error).message) ?? ['']
    throw new SpillwayError('INVALID', `It is not JSON${place}.`)
  }
}

/** Throws `INVALID` unless `value` is an object with none but these members. */
export function objectOf(
  field: string,
  value: unknown,
  members: ReadonlySet<string>,
): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalidField(field, 'be an object')
  for (const name of Object.keys(value)) {
    // A misspelt expiry would be none.
    if (!members.has(name)) throw invalidField(field, `have no members beside ${[...members].join(', ')}`)
  }
  return value as Readonly<Record<string, unknown>>
}
