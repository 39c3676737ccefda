/*
 * The thread that runs a photon's handler. Invariant: `photon` is read and written by this very
 * thread only; it is a plain field because that is the fastest thing a rewritten class can ask
 * (Photons.current), many times faster than a ThreadLocal in code that the JIT has compiled.
 */
package lantern.photon;

/** A thread that carries its photon in a field; see the head of this file. */
public class PhotonThread extends Thread {
    Photon photon;
    Photons.Saved saved;

    /** As Thread; never a daemon, whatever made it. */
    public PhotonThread(String name) {
        super(null, null, name, 0, false);
        setDaemon(false);
    }
}
