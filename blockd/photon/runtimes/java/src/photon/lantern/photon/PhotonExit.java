/*
 * Thrown where an application class calls System.exit within a photon: the process belongs to the
 * other photons too, so only the invocation ends.
 */
package lantern.photon;

/** An invocation asked to end the process. */
public final class PhotonExit extends Error {
    private static final long serialVersionUID = 1L;

    PhotonExit(int status) {
        super("the handler called exit(" + status + "); its invocation ends, the sandbox does not");
    }
}
