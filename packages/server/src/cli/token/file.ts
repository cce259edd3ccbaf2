import { SpillwayError } from 'spillway'
import { Failure } from '../errors.ts'

/** The file of tokens that commands work with unless they are told another. */
export const defaultTokenFile = './spillway-tokens.json'

/** The option of every command that works with a file of tokens. */
export const fileOption: {
  readonly file: { readonly type: 'string'; readonly value: string; readonly help: string }
} = { file: { type: 'string', value: '<file>', help: `The file of tokens. Default: ${defaultTokenFile}` } }

/** The file that the option or the default names. */
export function tokenFile(option: string | undefined): string {
  return option ?? defaultTokenFile
}

/** An error of a file of tokens as a command ends with it. */
export function asFileFailure(error: unknown): unknown {
  return error instanceof SpillwayError ? new Failure(error.message, { cause: error }) : error
}
